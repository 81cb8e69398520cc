//! The driver passes the suite in classic groups, too, which miss a member as soon as brokers let them by default.

mod common;

use std::process::ExitCode;

fn main() -> ExitCode {
    common::suite::on_real_broker("kafka-classic", "protocol=classic&session_timeout=6s")
}
