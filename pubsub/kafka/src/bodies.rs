//! The bodies of messages that were fetched.

use bytes::{Bytes, BytesMut};

/// Bodies of up to so many bytes share their memory with their neighbours: to have some for each, from one thread to the
/// other and back, costs as much as all the rest of fetching them.
const SMALL: usize = 128;
/// What they share, and so the most that one of them keeps in memory when it is kept alone.
const SHARED: usize = 1024;

/// Copies bodies, which belong to the client, to where handlers may keep them.
#[derive(Debug, Default)]
pub(crate) struct Bodies(BytesMut);

impl Bodies {
    pub(crate) fn copy(&mut self, body: &[u8]) -> Bytes {
        if body.is_empty() || body.len() > SMALL {
            return Bytes::copy_from_slice(body);
        }
        if self.0.capacity() < body.len() {
            self.0 = BytesMut::with_capacity(SHARED);
        }
        self.0.extend_from_slice(body);
        self.0.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_stay_what_they_were_whoever_their_neighbours_are() {
        let mut bodies = Bodies::default();
        let body = |number: usize| vec![number as u8; number % (2 * SMALL)];
        let copies: Vec<Bytes> = (0..1000).map(|number| bodies.copy(&body(number))).collect();
        for (number, copy) in copies.iter().enumerate() {
            assert_eq!(copy, &body(number), "{number}");
        }
    }
}
