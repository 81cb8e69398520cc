//! The accept loop: from a listening socket to requests, and back to nothing when the process stops.
//!
//! It is ours because no stock loop ends: with one client that sent half a request, or nothing at all, the usual
//! ones wait for ever after a shutdown signal. Here every connection is a task with an owner, every stage of a
//! connection has a deadline, and what is left at the end of the drain is cut off by name.
//!
//! | file | noun |
//! |---|---|
//! | `acceptor.rs` | takes connections off the socket, within the cap; stops taking them |
//! | `connection.rs` | serves one connection: tells HTTP/1 from HTTP/2, hands it to hyper |
//! | `streams.rs` | the streams of one HTTP/2 connection, each a task |
//! | `conn.rs`, `stage.rs` | what is known of a connection: its peer, stage, deadlines |
//! | `orders.rs` | how a connection is made to end: drain, deadline, abort |
//! | `connections.rs` | all connections: the tick that enforces deadlines, drain, abort |
//! | `timer.rs` | the time as hyper's HTTP/2 sees it |
//! | `io.rs` | the socket as hyper sees it |
//! | `refusal.rs` | what is said when no request reaches a handler |
//! | `goodbye.rs`, `frames.rs` | the last frame of a WebSocket or an HTTP/2 connection, said from below |
//! | `breach.rs` | limits of HTTP/2 that a peer broke, as they are counted |
//!
//! TLS will go between `io.rs` and `connection.rs`: a handshake in the connection's own task, under the first-byte
//! deadline, whose ALPN answer then replaces the look at the first bytes.

mod acceptor;
mod breach;
mod conn;
mod connection;
mod connections;
mod frames;
mod goodbye;
mod io;
mod orders;
mod refusal;
mod stage;
mod streams;
mod timer;

pub(crate) use acceptor::Acceptor;
pub(crate) use conn::Conn;
pub(crate) use connections::{Connections, LeftOver, Limits};
pub(crate) use stage::{Protocol, Stage};
pub(crate) use streams::body_polled;
