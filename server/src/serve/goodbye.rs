//! Saying goodbye from below: on a WebSocket the close frame 1001 "going away", on HTTP/2 a GOAWAY.
//!
//! A WebSocket handler written with axum's own types knows nothing of the drain. And hyper's own GOAWAY comes with a
//! ping, behind whose answer new streams are ignored; but a client may well have a request on its way that leaves
//! after that answer, and sees it fail. So the kit speaks for both: it follows the frames that leave and puts its own
//! between two of them. Ours names no last stream, so every request that is still sent is answered; the client, which
//! knows that it should go, closes when it has all its answers.
//!
//! Following the frames also shows what h2 tells nobody: which flood made it end a connection, and one of PING or
//! SETTINGS, which it would answer for ever.

use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::breach::Breach;
use super::frames::{Begun, Frames, Position};

/// Follows the outgoing frames of one connection, and knows when a frame of ours may go out.
#[derive(Debug)]
pub(super) struct Goodbye {
    frames: Frames,
    /// Beside the lock: it is asked at every turn of the connection, and is false for nearly all of its life.
    wanted: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// There is nothing left to say: the handler, or hyper, has said it.
    closed: bool,
    /// Bytes of our frame that have been written.
    sent: usize,
    /// Answers to PING and SETTINGS that left since anything else did.
    answers: u32,
    position: Position,
}

/// FIN and opcode 8, two bytes of payload: 1001.
const CLOSE_1001: &[u8] = &[0x88, 0x02, 0x03, 0xE9];
/// Eight bytes, type 7, stream 0: no stream is refused, no error.
const GOAWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7F, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];

/// How many PING and SETTINGS frames are answered with nothing else in between: h2 would answer any number. Clients that
/// measure their round trips need one or two.
const ANSWERS_IN_A_ROW: u32 = 1000;

impl Goodbye {
    /// For a connection that becomes a WebSocket with the response which is about to be written.
    pub(super) fn websocket() -> Self {
        Self::of(Frames::WebSocket)
    }

    /// For an HTTP/2 connection of which nothing has been written.
    pub(super) fn http2() -> Self {
        Self::of(Frames::Http2)
    }

    /// Asks for the frame at the next boundary. Whether that is news.
    pub(super) fn say(&self) -> bool {
        let state = self.lock();
        !self.wanted.swap(true, Ordering::AcqRel) && !state.closed
    }

    /// What of the frame should be written now.
    pub(super) fn due(&self) -> Option<&'static [u8]> {
        if !self.is_wanted() {
            return None;
        }
        let state = self.lock();
        let begun = state.sent > 0;
        let may_begin = !state.closed && state.position.is_boundary();
        let frame = self.frame();
        (state.sent < frame.len() && (begun || may_begin)).then(|| &frame[state.sent..])
    }

    /// Some of the frame was written.
    pub(super) fn sent(&self, written: usize) {
        self.lock().sent += written;
    }

    /// Whether the frame is wanted and not written yet.
    pub(super) fn is_waiting(&self) -> bool {
        if !self.is_wanted() {
            return false;
        }
        let state = self.lock();
        !state.closed && state.sent < self.frame().len()
    }

    /// Whether nothing may be written any more: a WebSocket's close frame has been begun.
    pub(super) fn is_last_word(&self) -> bool {
        self.frames == Frames::WebSocket && self.is_wanted() && self.lock().sent > 0
    }

    /// How much of `buf` may be written before looking again: up to the end of the current frame while ours is
    /// wanted, everything otherwise.
    pub(super) fn allowed(&self, buf: &[u8]) -> usize {
        if self.is_waiting() { self.lock().position.frame_end(buf) } else { buf.len() }
    }

    /// These bytes left. Answers which limit they say the peer has broken, if any.
    pub(super) fn wrote(&self, bytes: &[u8]) -> Option<Breach> {
        self.lock().follow(bytes)
    }

    /// The first `written` bytes of these left. Answers as `wrote` does.
    pub(super) fn wrote_vectored(&self, bufs: &[IoSlice<'_>], mut written: usize) -> Option<Breach> {
        let (mut state, mut breach) = (self.lock(), None);
        for buf in bufs {
            let part = written.min(buf.len());
            breach = state.follow(&buf[..part]).or(breach);
            written -= part;
        }
        breach
    }

    fn of(frames: Frames) -> Self {
        let state = State { closed: false, sent: 0, answers: 0, position: Position::new(frames) };
        Self { frames, wanted: AtomicBool::new(false), state: Mutex::new(state) }
    }

    fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    fn frame(&self) -> &'static [u8] {
        match self.frames {
            Frames::WebSocket => CLOSE_1001,
            Frames::Http2 => GOAWAY,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn follow(&mut self, mut bytes: &[u8]) -> Option<Breach> {
        let mut breach = None;
        while !bytes.is_empty() {
            let (part, begun) = self.position.step(bytes);
            bytes = &bytes[part..];
            match begun {
                Some(Begun::Goodbye) => {
                    self.closed = true;
                    let said = Breach::of_goaway(bytes).filter(|_| self.position.is_http2());
                    breach = breach.or(said);
                }
                Some(Begun::Answer) => {
                    self.answers += 1;
                    if self.answers == ANSWERS_IN_A_ROW {
                        breach = Some(Breach::ControlFlood);
                    }
                }
                Some(Begun::Other) => self.answers = 0,
                None => {}
            }
        }
        breach
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n";

    fn upgraded() -> Goodbye {
        let goodbye = Goodbye::websocket();
        goodbye.wrote(HEAD);
        goodbye
    }

    /// Frames with payloads of the three length encodings, one after another.
    fn websocket_frames(lengths: &[usize]) -> Vec<u8> {
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

    fn http2_frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let mut frame = (length as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.extend(std::iter::repeat_n(7, length));
        frame
    }

    /// Says goodbye after `cut` bytes have been written, and answers after how many it came.
    fn comes_after(goodbye: &Goodbye, bytes: &[u8], cut: usize) -> usize {
        goodbye.wrote(&bytes[..cut]);
        assert!(goodbye.say() && !goodbye.say(), "it is news once");
        let mut written = cut;
        while goodbye.due().is_none() {
            let allowed = goodbye.allowed(&bytes[written..]);
            assert!(allowed > 0);
            goodbye.wrote(&bytes[written..written + allowed]);
            written += allowed;
        }
        assert_eq!(goodbye.due(), Some(goodbye.frame()));
        written
    }

    #[test]
    fn a_close_frame_waits_for_the_end_of_a_frame() {
        let bytes = websocket_frames(&[5, 300, 70_000, 0]);
        let ends = [0, 7, 7 + 304, 7 + 304 + 70_010, bytes.len()];
        for cut in [0, 1, 2, 4, 7, 8, 20, 400, bytes.len() - 1] {
            let first = ends.into_iter().find(|end| *end >= cut).unwrap();
            assert_eq!(comes_after(&upgraded(), &bytes, cut), first, "cut at {cut}");
        }
    }

    #[test]
    fn a_goaway_waits_for_the_end_of_a_frame_and_of_a_header_block() {
        let frames = [http2_frame(4, 0, 12), http2_frame(1, 1, 30), http2_frame(9, 4, 5), http2_frame(0, 1, 700)];
        let bytes = frames.concat();
        let ends = [0, 21, 21 + 39 + 14, bytes.len()];
        for cut in 0..bytes.len() {
            let first = ends.into_iter().find(|end| *end >= cut).unwrap();
            assert_eq!(comes_after(&Goodbye::http2(), &bytes, cut), first, "cut at {cut}");
        }
    }

    #[test]
    fn pieces_of_several_buffers_are_followed_like_one() {
        let bytes = [http2_frame(4, 0, 12), http2_frame(0, 0, 40)].concat();
        for cut in 0..=bytes.len() {
            let goodbye = Goodbye::http2();
            let bufs = [IoSlice::new(&bytes[..10]), IoSlice::new(&bytes[10..40]), IoSlice::new(&bytes[40..])];
            goodbye.wrote_vectored(&bufs, cut);
            goodbye.say();
            assert_eq!(goodbye.due().is_some(), [0, 21, bytes.len()].contains(&cut), "cut at {cut}");
        }
    }

    #[test]
    fn it_is_said_once_and_not_after_the_same_word_of_others() {
        let goodbye = upgraded();
        assert_eq!(goodbye.due(), None);
        assert!(goodbye.say());
        assert_eq!(goodbye.due(), Some(CLOSE_1001));
        goodbye.sent(3);
        assert!(goodbye.is_waiting() && goodbye.is_last_word());
        assert_eq!(goodbye.due(), Some(&CLOSE_1001[3..]));
        goodbye.sent(1);
        assert_eq!((goodbye.due(), goodbye.is_waiting()), (None, false));

        let polite = upgraded();
        polite.wrote(&[0x88, 0x00]);
        assert!(!polite.say());
        assert_eq!(polite.due(), None);
        let polite = Goodbye::http2();
        polite.wrote(GOAWAY);
        assert!(!polite.say());
    }

    #[test]
    fn nothing_is_said_before_the_responses_head_is_out() {
        for cut in 0..HEAD.len() {
            let goodbye = Goodbye::websocket();
            assert_eq!(comes_after(&goodbye, HEAD, cut), HEAD.len());
        }
    }

    #[test]
    fn after_a_goaway_the_connection_goes_on() {
        let goodbye = Goodbye::http2();
        goodbye.say();
        goodbye.sent(GOAWAY.len());
        assert!(!goodbye.is_last_word() && !goodbye.is_waiting());
        assert_eq!(goodbye.allowed(&[0; 100]), 100);
    }
}
