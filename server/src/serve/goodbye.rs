//! Closing a WebSocket with 1001 "going away" from below its handler.
//!
//! A handler written with axum's own types knows nothing of the drain, so the kit says goodbye for it: it follows
//! the frames that leave (RFC 6455 §5.2; a server's are never masked) and puts a close frame between two of them.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Follows the outgoing frames of one WebSocket, and knows when a close frame may go out.
#[derive(Debug, Default)]
pub(super) struct Goodbye(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    wanted: bool,
    /// The bytes of the frame header seen so far.
    header: [u8; 10],
    header_len: usize,
    /// Payload bytes of the current frame still to come.
    payload: u64,
    /// The handler has sent a close frame of its own: there is nothing left to say.
    closed: bool,
    /// Bytes of our close frame that have been written.
    sent: usize,
}

/// FIN and opcode 8, two bytes of payload: 1001.
const CLOSE_1001: [u8; 4] = [0x88, 0x02, 0x03, 0xE9];

impl Goodbye {
    /// Asks for a close frame at the next boundary.
    pub(super) fn say(&self) {
        self.lock().wanted = true;
    }

    /// What of the close frame should be written now.
    pub(super) fn due(&self) -> Option<&'static [u8]> {
        let state = self.lock();
        let begun = state.sent > 0;
        let may_begin = state.wanted && !state.closed && state.at_boundary();
        (state.sent < CLOSE_1001.len() && (begun || may_begin)).then(|| &CLOSE_1001[state.sent..])
    }

    /// Some of the close frame was written.
    pub(super) fn sent(&self, written: usize) {
        self.lock().sent += written;
    }

    /// Whether the close frame has been begun.
    pub(super) fn is_said(&self) -> bool {
        self.lock().sent > 0
    }

    /// How much of `buf` may be written before looking again: up to the end of the current frame once a close
    /// frame is wanted, everything otherwise.
    pub(super) fn allowed(&self, buf: &[u8]) -> usize {
        let state = self.lock();
        if !state.wanted || state.closed {
            return buf.len();
        }
        state.clone_position().frame_end(buf)
    }

    /// These bytes left.
    pub(super) fn wrote(&self, bytes: &[u8]) {
        self.lock().follow(bytes);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn at_boundary(&self) -> bool {
        self.header_len == 0 && self.payload == 0
    }

    fn clone_position(&self) -> Self {
        Self { header: self.header, header_len: self.header_len, payload: self.payload, ..Self::default() }
    }

    /// Where the current frame ends in `buf`, or all of it.
    fn frame_end(mut self, buf: &[u8]) -> usize {
        for end in 1..=buf.len() {
            // Payloads are skipped whole: only headers are looked at byte by byte.
            if self.payload > 1 {
                let rest = (buf.len() - (end - 1)) as u64;
                return if self.payload > rest { buf.len() } else { end - 1 + self.payload as usize };
            }
            self.follow(&buf[end - 1..end]);
            if self.at_boundary() {
                return end;
            }
        }
        buf.len()
    }

    fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let skip = self.payload.min(bytes.len() as u64);
                self.payload -= skip;
                bytes = &bytes[skip as usize..];
                continue;
            }
            self.header[self.header_len] = bytes[0];
            self.header_len += 1;
            bytes = &bytes[1..];
            if let Some(payload) = self.parsed_header() {
                self.closed |= self.header[0] & 0x0F == 8;
                self.payload = payload;
                self.header_len = 0;
            }
        }
    }

    /// The payload's length, once the header is whole.
    fn parsed_header(&self) -> Option<u64> {
        let header = &self.header[..self.header_len];
        match (*header.get(1)? & 0x7F, header.len()) {
            (126, 4) => Some(u64::from(u16::from_be_bytes([header[2], header[3]]))),
            (127, 10) => Some(u64::from_be_bytes(header[2..10].try_into().ok()?)),
            (126 | 127, _) => None,
            (short, _) => Some(u64::from(short)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames with payloads of the three length encodings, one after another.
    fn frames(lengths: &[usize]) -> Vec<u8> {
        let mut out = Vec::new();
        for &length in lengths {
            out.push(0x82);
            match length {
                0..126 => out.push(length as u8),
                126..65536 => {
                    out.push(126);
                    out.extend((length as u16).to_be_bytes());
                }
                _ => {
                    out.push(127);
                    out.extend((length as u64).to_be_bytes());
                }
            }
            out.extend(std::iter::repeat_n(0x88, length));
        }
        out
    }

    #[test]
    fn the_close_frame_waits_for_the_end_of_a_frame() {
        let bytes = frames(&[5, 300, 70_000, 0]);
        for cut in [1, 2, 4, 7, 8, 20, 400, 80_000.min(bytes.len() - 1)] {
            let goodbye = Goodbye::default();
            goodbye.wrote(&bytes[..cut]);
            goodbye.say();
            let mut written = cut;
            while goodbye.due().is_none() {
                let allowed = goodbye.allowed(&bytes[written..]);
                assert!(allowed > 0);
                goodbye.wrote(&bytes[written..written + allowed]);
                written += allowed;
            }
            let ends = [7, 7 + 304, 7 + 304 + 70_010, bytes.len()];
            assert!(ends.contains(&written), "cut at {cut}, closed at {written}");
            assert!(ends.iter().all(|end| *end < cut || *end >= written), "the first boundary after {cut} is used");
        }
    }

    #[test]
    fn a_close_frame_is_said_once_and_not_after_the_handlers_own() {
        let goodbye = Goodbye::default();
        assert_eq!(goodbye.due(), None);
        goodbye.say();
        assert_eq!(goodbye.due(), Some(&CLOSE_1001[..]));
        goodbye.sent(3);
        assert_eq!(goodbye.due(), Some(&CLOSE_1001[3..]));
        goodbye.sent(1);
        assert_eq!(goodbye.due(), None);

        let polite = Goodbye::default();
        polite.wrote(&[0x88, 0x00]);
        polite.say();
        assert_eq!(polite.due(), None);
    }
}
