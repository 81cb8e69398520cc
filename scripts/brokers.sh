#!/usr/bin/env bash
# Real brokers on loopback, for tests and for trying things out; no container engine needed.
#
#   scripts/brokers.sh up [NAME…]     start what does not answer yet, wait until all answer; may be repeated
#   scripts/brokers.sh down [NAME…]   stop what `up` started, and nothing else
#   scripts/brokers.sh status         say who answers
#
# NAME is kafka, aws or gcp; all three without one. kafka-cluster, which only starts when named, is three Kafka brokers
# for trying failover: kafka-1, kafka-2 and kafka-3 can also be stopped and started one by one, and keep their data
# until all three are down.
#
# Kafka 19092 (Apache Kafka, KRaft; 19192 wants TLS and a password, 19193 a client's certificate), the cluster 19391,
# 19392 and 19393, SNS and SQS 15000 (moto), Pub/Sub 18085 (Google's emulator, or Google's in-memory test server where the emulator is not installed). Logs
# and process ids are in .brokers/, data there is new at every start; downloads are kept in the user's cache.
set -euo pipefail
cd "$(dirname "$0")/.."

state=$PWD/.brokers
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mainspring/brokers
moto_version=5.2.5 pstest_version=2.4.0
port_kafka=19092 port_kafka_password=19192 port_kafka_certificate=19193 port_aws=15000 port_gcp=18085
wait_seconds=90

port() {
    case $1 in
        kafka-?) echo "1939${1#kafka-}" ;;
        *) local port=port_$1; echo "${!port}" ;;
    esac
}

answers() {
    case $1 in
        kafka | kafka-?) python3 scripts/answers.py kafka "$(port $1)" ;;
        aws) python3 scripts/answers.py http $port_aws ;;
        gcp) python3 scripts/answers.py grpc $port_gcp ;;
    esac
}

# What starts it: kafka-1 to kafka-3 are all started the same way.
kind() {
    case $1 in
        kafka-?) echo kafka_member ;;
        *) echo "$1" ;;
    esac
}

# Kafka -----------------------------------------------------------------------------------------------------

get_kafka() { scripts/kafka.sh fetch; }

start_kafka() {
    local tls=$cache/kafka-tls scram=org.apache.kafka.common.security.scram.ScramLoginModule
    certify "$tls"
    cat >"$state/kafka/settings" <<SETTINGS
node.id=1
controller.quorum.voters=1@127.0.0.1:19093
listeners=PLAINTEXT://127.0.0.1:$port_kafka,PASSWORD://127.0.0.1:$port_kafka_password,CERTIFICATE://127.0.0.1:$port_kafka_certificate,CONTROLLER://127.0.0.1:19093
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PASSWORD:SASL_SSL,CERTIFICATE:SSL,CONTROLLER:PLAINTEXT
ssl.keystore.type=PEM
ssl.keystore.location=$tls/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location=$tls/ca.pem
listener.name.certificate.ssl.client.auth=required
listener.name.password.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.password.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_bob="s3cret";
listener.name.password.scram-sha-256.sasl.jaas.config=$scram required;
listener.name.password.scram-sha-512.sasl.jaas.config=$scram required;
$shared_kafka
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
SETTINGS
    KAFKA_HEAP=512m launch kafka scripts/kafka.sh run "$state/kafka" \
        --add-scram 'SCRAM-SHA-256=[name=alice,password=s3cret]' \
        --add-scram 'SCRAM-SHA-512=[name=carol,password=s3cret]'
}

# Three brokers that hold everything thrice, and take no message that two do not have.
get_kafka_member() { scripts/kafka.sh fetch; }

start_kafka_member() {
    local name=$1 number=${1#kafka-} port
    port=$(port $name)
    cat >"$state/$name/settings" <<SETTINGS
node.id=$number
controller.quorum.voters=1@127.0.0.1:19291,2@127.0.0.1:19292,3@127.0.0.1:19293
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:1929$number
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
$shared_kafka
default.replication.factor=3
min.insync.replicas=2
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
SETTINGS
    KAFKA_CLUSTER_ID=mainspringThreeBrokers launch $name scripts/kafka.sh run "$state/$name"
}

shared_kafka='num.partitions=4
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
share.coordinator.state.topic.num.partitions=4
group.consumer.min.heartbeat.interval.ms=100
group.consumer.heartbeat.interval.ms=500
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=15000'

# Makes what its listeners with TLS show, and what clients need to trust and to show, where that is missing or about to
# expire: an authority, the certificates of broker and client that it signed, and one of another authority, whom nobody
# trusts. They are kept, so that all checkouts have the same ones, whichever of them started the broker.
certify() {
    openssl x509 -checkend 86400 -noout -in "$1/ca.pem" >/dev/null 2>&1 && [ -f "$1/complete" ] && return
    need openssl openssl
    rm -rf "$1"
    mkdir -p "$1"
    (
        cd "$1"
        umask 077
        for authority in ca stranger; do
            openssl req -x509 $new_key -keyout $authority.key -out $authority.pem -days 365 -subj "/CN=$authority"
        done
        for name in broker client; do
            openssl req $new_key -keyout $name.key -out $name.csr -subj "/CN=$name"
            openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 365 -out $name.pem \
                -extfile <(echo 'subjectAltName=DNS:localhost,IP:127.0.0.1')
        done
        cat broker.key >>broker.pem
    ) >"$1/log" 2>&1 || fail "kafka: openssl makes no certificates; see $1/log"
    touch "$1/complete"
}
new_key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'

# SNS and SQS -----------------------------------------------------------------------------------------------

get_aws() {
    local dir=$cache/moto-$moto_version
    [ -f "$dir/complete" ] && return
    echo "aws: fetching moto $moto_version (once)"
    # Debian ships Python without what makes a virtual environment.
    python3 -c 'import ensurepip' 2>/dev/null || install python3-venv
    rm -rf "$dir"
    python3 -m venv "$dir"
    "$dir/bin/pip" install -q "moto[server,sqs,sns]==$moto_version"
    touch "$dir/complete"
}

start_aws() {
    launch aws "$cache/moto-$moto_version/bin/moto_server" -H 127.0.0.1 -p $port_aws
}

# Google Pub/Sub --------------------------------------------------------------------------------------------

emulator() {
    local gcloud places=(/usr/lib/google-cloud-sdk /usr/lib64/google-cloud-sdk /usr/local/google-cloud-sdk
        /usr/share/google-cloud-sdk /opt/google-cloud-sdk /opt/google-cloud-cli "$HOME/google-cloud-sdk")
    gcloud=$(command -v gcloud || true)
    [ -z "$gcloud" ] || places=("$(dirname "$(dirname "$(readlink -f "$gcloud")")")" "${places[@]}")
    for place in "${places[@]}"; do
        ls "$place"/platform/pubsub-emulator/lib/cloud-pubsub-emulator-*-all.jar 2>/dev/null && return
    done | tail -n 1
}

get_gcp() {
    if [ -n "$(emulator)" ]; then need java default-jre-headless; return; fi
    local dir=$cache/pstest-$pstest_version
    [ -x "$dir/pstest" ] && return
    echo "gcp: no emulator beside gcloud; building Google's pstest $pstest_version instead (once)"
    need go golang-go
    mkdir -p "$dir"
    cat >"$dir/main.go" <<'GO'
package main

import "cloud.google.com/go/pubsub/v2/pstest"

func main() {
	if pstest.NewServerWithAddress("127.0.0.1:18085") == nil {
		panic("no server")
	}
	select {}
}
GO
    (cd "$dir" && rm -f go.mod go.sum && go mod init pstest && go get "cloud.google.com/go/pubsub/v2@v$pstest_version" &&
        go mod tidy && go build -o pstest .) >"$dir/log" 2>&1 || fail "gcp: pstest does not build; see $dir/log"
}

start_gcp() {
    local jar
    jar=$(emulator)
    if [ -n "$jar" ]; then
        launch gcp java -Xmx256m -jar "$jar" --host=127.0.0.1 --port=$port_gcp
    else
        launch gcp "$cache/pstest-$pstest_version/pstest"
    fi
}

# What they have in common ----------------------------------------------------------------------------------

fail() { echo "$*" >&2; exit 1; }

# need COMMAND PACKAGE: installs what provides the command where it is missing.
need() { command -v "$1" >/dev/null || install "$2"; }

install() { scripts/install.sh "$1" || exit 1; }

# In a session of its own, so that Ctrl-C at the terminal does not reach it.
launch() {
    local name=$1
    shift
    setsid "$@" >>"$state/$name/log" 2>&1 </dev/null &
    echo "$! $(born $!)" >"$state/$name/process"
}

# When a process started, in clock ticks: with it a process id means one process and not a later one's. Nothing
# for a process that has ended but that nobody has waited for yet.
born() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" { print $20 }'; }

# The id of the process that `up` started, if it still runs.
ours() {
    local pid start
    [ -f "$state/$1/process" ] && read -r pid start <"$state/$1/process" && [ -n "$start" ] && [ "$(born "$pid")" = "$start" ] && echo "$pid"
}

up() {
    local keep=no
    ! cluster_runs || keep=yes
    for name in "${names[@]}"; do
        if answers $name; then continue; fi
        if pid=$(ours $name); then continue; fi
        mkdir -p "$cache"
        "get_$(kind $name)"
        [ $keep-$(kind $name) = yes-kafka_member ] || rm -rf "${state:?}/$name"
        mkdir -p "$state/$name"
        "start_$(kind $name)" $name
    done
    local deadline=$((SECONDS + wait_seconds))
    for name in "${names[@]}"; do
        until answers $name; do
            ours $name >/dev/null || { tail -n 20 "$state/$name/log" >&2; fail "$name: ended at once; see $state/$name/log"; }
            [ $SECONDS -lt $deadline ] || { tail -n 20 "$state/$name/log" >&2; fail "$name: no answer in ${wait_seconds}s; see $state/$name/log"; }
            sleep 0.2
        done
    done
    status
}

down() {
    local stopped=() pid
    for name in "${names[@]}"; do
        # All at once: of a cluster's brokers, the last ones wait for each other.
        if pid=$(ours $name); then kill "$pid"; stopped+=($name); fi
    done
    for name in "${stopped[@]}"; do
        for _ in $(seq 100); do
            ours $name >/dev/null || break
            sleep 0.1
        done
        if pid=$(ours $name); then kill -KILL "$pid"; fi
        rm -f "${state:?}/$name/process"
        [ $(kind $name) = kafka_member ] || rm -rf "${state:?}/$name/data"
        echo "$name: stopped"
    done
    cluster_runs || rm -rf "${state:?}"/kafka-?/data
}

# Whether any of the three runs.
cluster_runs() {
    local name
    for name in $cluster; do
        ! ours $name >/dev/null || return 0
    done
    return 1
}

status() {
    local at who
    for name in "${names[@]}"; do
        at=127.0.0.1:$(port $name) who='not started here'
        if ours $name >/dev/null; then who="process $(ours $name)"; fi
        if answers $name; then echo "$name: answers on $at ($who)"; else echo "$name: no answer on $at"; fi
    done
}

usage='usage: scripts/brokers.sh up|down [kafka|aws|gcp|kafka-cluster]… or status'
cluster='kafka-1 kafka-2 kafka-3'
names=()
for name in "${@:2}"; do
    case $name in
        kafka | aws | gcp | kafka-[123]) names+=($name) ;;
        kafka-cluster) names+=($cluster) ;;
        *) fail "$usage" ;;
    esac
done
case ${#names[@]}-${1:-} in
    0-up) names=(kafka aws gcp) ;;
    0-*) names=(kafka aws gcp $cluster) ;;
esac
case ${1:-} in
    up | down | status) "$1" ;;
    *) fail "$usage" ;;
esac
