//! How much a route may hold.

/// Room for messages, or what takes it up.
#[derive(Clone, Copy, Default)]
pub(super) struct Room {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

impl Room {
    /// What is left of `max`; nothing unless there is some of both.
    pub(super) fn left_of(self, max: Self) -> Option<Self> {
        let left = |max: usize, held: usize| max.checked_sub(held).filter(|left| *left > 0);
        Some(Self { messages: left(max.messages, self.messages)?, bytes: left(max.bytes, self.bytes)? })
    }

    /// Takes up room for a message; false when there is none for another. One may go over.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        self.messages -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
        self.messages > 0 && self.bytes > 0
    }
}
