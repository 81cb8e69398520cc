//! How the command ends.

use std::io::IsTerminal;
use std::process::ExitCode;

use mainspring::daemon::Chain;
use mainspring::pubsub::{Error, ErrorKind};

const EX_UNAVAILABLE: u8 = 69;
const EX_CONFIG: u8 = 78;

/// 128 and the number of SIGINT.
const INTERRUPTED: u8 = 130;

/// An end before the work was done, and why.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) code: u8,
    pub(crate) message: String,
}

impl Exit {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: EX_CONFIG, message: message.into() }
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self { code: EX_UNAVAILABLE, message: message.into() }
    }
}

/// What kept a broker from being used at all.
impl From<Error> for Exit {
    fn from(error: Error) -> Self {
        let code = if error.kind() == ErrorKind::Config { EX_CONFIG } else { EX_UNAVAILABLE };
        Self { code, message: Chain(&error).to_string() }
    }
}

/// The command line is wrong, and clap has said how.
pub(crate) fn usage() -> ExitCode {
    ExitCode::from(EX_CONFIG)
}

/// Ended by an interrupt before the work was done.
pub(crate) fn interrupted() -> ExitCode {
    ExitCode::from(INTERRUPTED)
}

/// Tells a person what is wrong, on standard error.
pub(crate) fn complain(message: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "mainspring: {}", message.trim_end());
}

/// Tells somebody who may be waiting in vain that a queue in memory ends with this process. A script knows.
pub(crate) fn warn_of_memory(volatile: bool) {
    if volatile && std::io::stderr().is_terminal() {
        complain("what is published to `memory://` stays in this process: nobody else sees it");
    }
}
