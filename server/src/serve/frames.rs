//! Where one frame ends and the next begins, in bytes that leave.

/// What the frames look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frames {
    /// RFC 6455 §5.2; a server's are never masked.
    WebSocket,
    /// RFC 9113 §4.1.
    Http2,
}

/// A frame whose header has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// It says goodbye itself.
    Goodbye,
    /// To a PING or SETTINGS of the peer's.
    Answer,
    Other,
}

/// Where in the stream of frames the writing is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    frames: Frames,
    /// How much of the blank line behind the 101 response's head has left: a WebSocket's frames begin after it.
    blank_line: usize,
    /// The bytes of the frame header seen so far.
    header: [u8; 10],
    header_len: usize,
    /// Payload bytes of the current frame still to come.
    payload: u64,
    /// An HTTP/2 header block goes on in the next frame, which must follow at once.
    in_header_block: bool,
}

const BLANK_LINE: &[u8] = b"\r\n\r\n";

impl Position {
    /// Before the first byte.
    pub(super) fn new(frames: Frames) -> Self {
        Self { frames, blank_line: 0, header: [0; 10], header_len: 0, payload: 0, in_header_block: false }
    }

    /// Whether a frame of ours may go out here.
    pub(super) fn is_boundary(&self) -> bool {
        let begun = self.frames == Frames::Http2 || self.blank_line == BLANK_LINE.len();
        begun && self.header_len == 0 && self.payload == 0 && !self.in_header_block
    }

    /// Where the current frame ends in `buf`, or all of it.
    pub(super) fn frame_end(mut self, buf: &[u8]) -> usize {
        let mut end = 0;
        while end < buf.len() {
            end += self.step(&buf[end..]).0;
            if self.is_boundary() {
                break;
            }
        }
        end
    }

    /// Whether these are HTTP/2's.
    pub(super) fn is_http2(&self) -> bool {
        self.frames == Frames::Http2
    }

    /// Moves on by a payload, by what there is of a header, or by one byte of anything else. Answers by how much, and
    /// which frame has begun.
    pub(super) fn step(&mut self, bytes: &[u8]) -> (usize, Option<Begun>) {
        if self.frames == Frames::WebSocket && self.blank_line < BLANK_LINE.len() {
            // Only a carriage return can begin the blank line anew.
            let next = if bytes[0] == b'\r' { 1 } else { 0 };
            self.blank_line = if bytes[0] == BLANK_LINE[self.blank_line] { self.blank_line + 1 } else { next };
            return (1, None);
        }
        if self.payload > 0 {
            let skip = self.payload.min(bytes.len() as u64);
            self.payload -= skip;
            return (skip as usize, None);
        }
        let part = self.header_left().min(bytes.len());
        self.header[self.header_len..][..part].copy_from_slice(&bytes[..part]);
        self.header_len += part;
        let Some(payload) = self.parsed_header() else { return (part, None) };
        self.payload = payload;
        self.header_len = 0;
        (part, Some(self.begin()))
    }

    /// How much of the header is surely still to come.
    fn header_left(&self) -> usize {
        match self.frames {
            Frames::Http2 => 9 - self.header_len,
            // The second byte says how long the header is.
            Frames::WebSocket => 1,
        }
    }

    /// The payload's length, once the header is whole.
    fn parsed_header(&self) -> Option<u64> {
        let header = &self.header[..self.header_len];
        if self.frames == Frames::Http2 {
            return (header.len() == 9).then(|| u64::from(u32::from_be_bytes([0, header[0], header[1], header[2]])));
        }
        match (*header.get(1)? & 0x7F, header.len()) {
            (126, 4) => Some(u64::from(u16::from_be_bytes([header[2], header[3]]))),
            (127, 10) => Some(u64::from_be_bytes(header[2..10].try_into().ok()?)),
            (126 | 127, _) => None,
            (short, _) => Some(u64::from(short)),
        }
    }

    /// Takes note of the frame whose header is whole.
    fn begin(&mut self) -> Begun {
        match self.frames {
            Frames::WebSocket if self.header[0] & 0x0F == 8 => Begun::Goodbye,
            Frames::WebSocket => Begun::Other,
            Frames::Http2 => {
                let (kind, flags) = (self.header[3], self.header[4]);
                // HEADERS, PUSH_PROMISE and CONTINUATION, without END_HEADERS.
                self.in_header_block = matches!(kind, 1 | 5 | 9) && flags & 4 == 0;
                match kind {
                    7 => Begun::Goodbye,
                    // SETTINGS and PING, with ACK.
                    4 | 6 if flags & 1 == 1 => Begun::Answer,
                    _ => Begun::Other,
                }
            }
        }
    }
}
