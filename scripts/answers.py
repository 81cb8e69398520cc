#!/usr/bin/env python3
"""Exits 0 when a broker answers in its own protocol, 1 when not: answers.py kafka|http|grpc PORT

A port that is open proves little: a broker opens it long before it serves.
"""
import http.client
import socket
import struct
import sys


def kafka(port):
    # ApiVersions, version 0: size, api key 18, api version 0, correlation id 7, client id "up".
    with socket.create_connection(("127.0.0.1", port), 2) as s:
        s.sendall(struct.pack(">ihhih2s", 12, 18, 0, 7, 2, b"up"))
        reply = read(s, 10)
        correlation, error = struct.unpack(">xxxxih", reply)
        return correlation == 7 and error == 0


def http_get(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    connection.request("GET", "/moto-api/")
    return connection.getresponse().status == 200


def grpc(port):
    # The HTTP/2 preface and empty SETTINGS: whoever speaks HTTP/2 sends its own SETTINGS (frame type 4).
    with socket.create_connection(("127.0.0.1", port), 2) as s:
        s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        return read(s, 9)[3] == 4


def read(s, n):
    data = b""
    while len(data) < n:
        more = s.recv(n - len(data))
        if not more:
            raise OSError("closed")
        data += more
    return data


try:
    answered = {"kafka": kafka, "http": http_get, "grpc": grpc}[sys.argv[1]](int(sys.argv[2]))
except (OSError, http.client.HTTPException):
    answered = False
sys.exit(0 if answered else 1)
