//! What is measured.

use super::Used;
use crate::arms::{self, Arm};
use crate::load::Protocol;
use crate::messages::Path;

/// A path that a request or a message takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// A request to an arm.
    Http(Protocol, Arm),
    /// A message through the router.
    Messages(Path),
}

impl Case {
    /// All of them, those first that others are compared with.
    pub fn all() -> Vec<Self> {
        let http = |protocol| Arm::GATED.map(|arm| Self::Http(protocol, arm));
        let requests = [Protocol::Http1, Protocol::Http2].into_iter().flat_map(http);
        requests.chain(Path::ALL.map(Self::Messages)).collect()
    }

    /// Whether it is measured only for others to be compared with it: `gates.toml` knows nothing of it.
    pub fn is_mark(self) -> bool {
        matches!(self, Self::Messages(path) if path.is_mark())
    }

    /// What the table and the command line call it.
    pub fn name(self) -> String {
        match self {
            Self::Http(protocol, arm) => format!("{}-{}", protocol.name(), arm.name()),
            Self::Messages(path) => path.name().to_owned(),
        }
    }
}

/// Runs the case called `name` in this process, to be measured.
///
/// # Errors
/// When there is no such case.
pub fn subject(name: &str, used: fn() -> Used) -> Result<(), String> {
    let case = Case::all().into_iter().find(|case| case.name() == name).ok_or(format!("there is no case `{name}`"))?;
    match case {
        Case::Http(_, arm) => arms::serve(arm, used),
        Case::Messages(path) => path.run(move || {
            let Used { allocations, bytes } = super::mark(used);
            println!("{allocations} {bytes}");
        }),
    }
    Ok(())
}
