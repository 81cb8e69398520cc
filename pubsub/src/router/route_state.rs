//! What a route does.

use std::fmt;

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RouteState {
    /// It pulls and handles, or will when its router runs.
    Running,
    /// It neither pulls nor begins a handler, until it is resumed.
    Paused,
    /// It finishes what handlers have begun, for good.
    Draining,
    /// It has closed its subscriber, or its router is gone.
    Ended,
}

impl RouteState {
    pub(crate) const ALL: [Self; 4] = [Self::Running, Self::Paused, Self::Draining, Self::Ended];

    /// The name used in metrics and on the debug page.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Ended => "ended",
        }
    }

    /// What has to be done for a route to be so.
    pub(super) fn verb(self) -> &'static str {
        match self {
            Self::Running => "resume",
            Self::Paused => "pause",
            Self::Draining | Self::Ended => "drain",
        }
    }
}

/// As it follows the route's name: `runs`, `is paused`, `drains`, `has ended`.
impl fmt::Display for RouteState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "runs",
            Self::Paused => "is paused",
            Self::Draining => "drains",
            Self::Ended => "has ended",
        })
    }
}
