//! What a topic keeps for groups that come later.

use std::collections::VecDeque;

use super::Config;
use super::parcel::Parcel;

/// The newest messages of a topic, by number.
#[derive(Default)]
pub(super) struct Retained {
    newest: VecDeque<(u64, Parcel)>,
    bytes: usize,
}

impl Retained {
    /// Keeps a message, and forgets as many old ones as there have to be room for.
    pub(super) fn push(&mut self, seq: u64, parcel: &Parcel, config: &Config) {
        if config.retention == 0 {
            return;
        }
        self.bytes += parcel.size;
        self.newest.push_back((seq, parcel.clone()));
        while self.newest.len() > config.retention || self.bytes > config.max_bytes.as_usize() {
            let Some((_, oldest)) = self.newest.pop_front() else { return };
            self.bytes -= oldest.size;
        }
    }

    /// What is kept, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(u64, Parcel)> {
        self.newest.iter()
    }
}
