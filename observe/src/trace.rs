//! Trace context as W3C's `traceparent` carries it.

use std::fmt;

/// The flags we know: `sampled`, and `random` of level 2. Unknown ones must not be passed on.
const KNOWN_FLAGS: u8 = SAMPLED | RANDOM;
const SAMPLED: u8 = 0x01;
const RANDOM: u8 = 0x02;

/// One position in a distributed trace: which trace, which span of it, and whether it is recorded.
///
/// A server reads the caller's with [`parse`](Self::parse), works under a [`child`](Self::child) of it, and
/// sends [`traceparent`](Self::traceparent) along with every request and message of its own. A malformed
/// header is not an error: it is ignored, and the trace begins here. Copies are 25 bytes; nothing allocates.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
}

impl TraceContext {
    /// Begins a trace, with random ids. It is not marked as sampled: who records it decides that.
    #[expect(clippy::new_without_default, reason = "a default would have to be the same each time")]
    pub fn new() -> Self {
        let trace_id = fastrand::u128(..).max(1).to_be_bytes();
        Self { trace_id, span_id: random_span_id(), flags: RANDOM }
    }

    /// Reads a `traceparent` header.
    ///
    /// Strict, as the specification asks: lower-case hexadecimal digits only, no all-zero ids, version `ff` never. A
    /// version above `00` is read by the fields that `00` defines, and may have more after them. Flags that are not
    /// known are dropped.
    pub fn parse(traceparent: &[u8]) -> Option<Self> {
        let (known, rest) = traceparent.split_at_checked(55)?;
        let [version] = hex(&known[..2])?;
        let continues = rest.is_empty() || (version > 0 && rest[0] == b'-');
        if version == 0xff || !continues || [known[2], known[35], known[52]] != *b"---" {
            return None;
        }
        let context =
            Self { trace_id: hex(&known[3..35])?, span_id: hex(&known[36..52])?, flags: hex::<1>(&known[53..])?[0] };
        let named = context.trace_id != [0; 16] && context.span_id != [0; 8];
        named.then_some(Self { flags: context.flags & KNOWN_FLAGS, ..context })
    }

    /// A new span of the same trace.
    pub fn child(&self) -> Self {
        Self { span_id: random_span_id(), ..*self }
    }

    /// The header's value: 55 ASCII characters, version `00`.
    pub fn traceparent(&self) -> [u8; 55] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        text[3..35].copy_from_slice(&self.trace_id_hex());
        text[36..52].copy_from_slice(&self.span_id_hex());
        write_hex(&[self.flags], &mut text[53..]);
        text
    }

    /// The trace's id as ASCII hexadecimal digits.
    pub fn trace_id_hex(&self) -> [u8; 32] {
        let mut text = [0; 32];
        write_hex(&self.trace_id, &mut text);
        text
    }

    /// The span's id as ASCII hexadecimal digits.
    pub fn span_id_hex(&self) -> [u8; 16] {
        let mut text = [0; 16];
        write_hex(&self.span_id, &mut text);
        text
    }

    /// The trace's id.
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The span's id.
    pub fn span_id(&self) -> [u8; 8] {
        self.span_id
    }

    /// Whether somebody upstream records this trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same position, recorded or not.
    pub fn with_sampled(self, sampled: bool) -> Self {
        Self { flags: if sampled { self.flags | SAMPLED } else { self.flags & !SAMPLED }, ..self }
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(std::str::from_utf8(&self.traceparent()).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceContext({self})")
    }
}

fn random_span_id() -> [u8; 8] {
    fastrand::u64(..).max(1).to_be_bytes()
}

fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let (mut bytes, mut seen) = ([0; N], 0);
    for (byte, [high, low]) in bytes.iter_mut().zip(text.as_chunks().0) {
        let (high, low) = (DIGIT[usize::from(*high)], DIGIT[usize::from(*low)]);
        seen |= high | low;
        *byte = high << 4 | low;
    }
    (seen < NO_DIGIT).then_some(bytes)
}

fn write_hex(bytes: &[u8], text: &mut [u8]) {
    for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *pair = HEX[usize::from(*byte)];
    }
}

/// More than any digit is worth.
const NO_DIGIT: u8 = 0x10;

/// What each character is worth as a digit.
static DIGIT: [u8; 256] = {
    let mut worth = [NO_DIGIT; 256];
    let mut digit = 0;
    while digit < 0x10 {
        worth[b"0123456789abcdef"[digit] as usize] = digit as u8;
        digit += 1;
    }
    worth
};

/// The digits of each byte.
static HEX: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut hex = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        hex[byte] = [digits[byte >> 4], digits[byte & 0xf]];
        byte += 1;
    }
    hex
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_specifications_example_is_read() {
        let context = TraceContext::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!(context.to_string(), EXAMPLE);
        assert_eq!(context.trace_id()[0], 0x4b);
        assert!(context.is_sampled());
        assert!(!context.with_sampled(false).is_sampled());
    }

    #[test]
    fn what_the_specification_calls_invalid_is_refused() {
        for refused in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01what",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0G",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(refused.as_bytes()), None, "{refused}");
        }
    }

    #[test]
    fn a_future_version_is_read_by_what_is_known_of_it() {
        for tolerated in [
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-fd-more",
        ] {
            let context = TraceContext::parse(tolerated.as_bytes()).unwrap();
            assert_eq!(context.to_string(), EXAMPLE);
        }
    }

    #[test]
    fn a_child_keeps_the_trace_and_its_sampling() {
        let parent = TraceContext::parse(EXAMPLE.as_bytes()).unwrap();
        let child = parent.child();
        assert_eq!((child.trace_id(), child.is_sampled()), (parent.trace_id(), true));
        assert_ne!(child.span_id(), parent.span_id());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(trace_id in any::<u128>(), span_id in any::<u64>(), sampled: bool) {
            let context = TraceContext { trace_id: (trace_id | 1).to_be_bytes(), span_id: (span_id | 1).to_be_bytes(), flags: 0 };
            let context = context.with_sampled(sampled);
            prop_assert_eq!(TraceContext::parse(&context.traceparent()), Some(context));
        }

        #[test]
        fn a_trace_that_begins_here_is_valid(_run in 0..64) {
            let context = TraceContext::new();
            prop_assert_eq!(TraceContext::parse(&context.traceparent()), Some(context));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, at in 0_usize..55, byte: u8) {
            let _ = TraceContext::parse(&bytes);
            let mut nearly = EXAMPLE.as_bytes().to_vec();
            nearly[at] = byte;
            if let Some(context) = TraceContext::parse(&nearly) {
                prop_assert!(context.trace_id() != [0; 16] && context.span_id() != [0; 8]);
            }
        }
    }
}
