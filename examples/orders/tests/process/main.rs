//! The built daemon, driven from outside: signals, exit codes, output.

mod config;
mod daemon;
mod http;
mod kafka;
mod life;
mod load;
mod profiles;
