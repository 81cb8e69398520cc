//! The driver passes the suite, against a broker that may be restarted.

mod common;

use std::process::ExitCode;

fn main() -> ExitCode {
    common::suite::on_real_broker("kafka", "protocol=auto")
}
