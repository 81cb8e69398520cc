//! Limits of HTTP/2 that a peer can break, told apart by what leaves.

const NO_ERROR: u8 = 0;
const ENHANCE_YOUR_CALM: u8 = 11;

/// A limit of HTTP/2 that the peer broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breach {
    /// It reset what it had asked for, again and again.
    ResetFlood,
    /// Its header block had no end.
    ContinuationFlood,
    /// PING or SETTINGS, again and again.
    ControlFlood,
    /// Another one that h2 turns away without a name.
    Flood,
    /// It did not speak HTTP/2.
    Malformed,
}

impl Breach {
    /// How it is counted.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::ResetFlood => "reset_flood",
            Self::ContinuationFlood => "continuation_flood",
            Self::ControlFlood => "control_flood",
            Self::Flood => "flood",
            Self::Malformed => "malformed",
        }
    }

    /// What the payload of a GOAWAY says: the last stream, a code, and words, which alone tell floods apart.
    ///
    /// It leaves in one piece unless the socket is full; of one that does not nothing is said.
    pub(super) fn of_goaway(payload: &[u8]) -> Option<Self> {
        let (fixed, words) = payload.split_at_checked(8)?;
        let said = |what: &[u8]| words.starts_with(what);
        match fixed[4..] {
            [0, 0, 0, NO_ERROR] => None,
            [0, 0, 0, ENHANCE_YOUR_CALM] if said(b"too_many_resets") || said(b"too_many_internal_resets") => {
                Some(Self::ResetFlood)
            }
            [0, 0, 0, ENHANCE_YOUR_CALM] if said(b"too_many_continuations") => Some(Self::ContinuationFlood),
            [0, 0, 0, ENHANCE_YOUR_CALM] => Some(Self::Flood),
            _ => Some(Self::Malformed),
        }
    }
}
