//! Strings from anywhere, made safe for one line.

use std::fmt;

/// Where a string stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quoting {
    /// Between the quotes of a JSON string.
    Json,
    /// As it is, for a person to read.
    Bare,
}

/// Appends what is written to it, escaped.
#[derive(Debug)]
pub(crate) struct Text<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    quoting: Quoting,
}

impl<'a> Text<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, quoting: Quoting) -> Self {
        Self { start: out.len(), out, quoting }
    }

    /// What was appended so far.
    pub(super) fn written(&self) -> &[u8] {
        &self.out[self.start..]
    }

    /// Appends `text` such that it can neither end the line, nor the string it stands in, nor steer a terminal.
    pub(crate) fn push(&mut self, text: &str) {
        if is_harmless(text.as_bytes()) {
            return self.out.extend_from_slice(text.as_bytes());
        }
        self.push_escaped(text);
    }

    fn push_escaped(&mut self, text: &str) {
        let mut rest = text;
        while let Some(at) = first_suspect(rest.as_bytes()) {
            let (harmless, suspect) = rest.split_at(at);
            self.out.extend_from_slice(harmless.as_bytes());
            let mut characters = suspect.chars();
            // Suspect bytes are ASCII or the first of a character, so there is one here.
            if let Some(character) = characters.next() {
                self.push_suspect(character);
            }
            rest = characters.as_str();
        }
        self.out.extend_from_slice(rest.as_bytes());
    }

    /// Appends bytes that may not be UTF-8; what is not becomes U+FFFD.
    pub(super) fn push_bytes(&mut self, bytes: &[u8]) {
        if is_harmless(bytes) {
            return self.out.extend_from_slice(bytes);
        }
        for chunk in bytes.utf8_chunks() {
            self.push(chunk.valid());
            if !chunk.invalid().is_empty() {
                self.push("\u{fffd}");
            }
        }
    }

    fn push_suspect(&mut self, character: char) {
        match character {
            '"' | '\\' if self.quoting == Quoting::Json => self.out.extend_from_slice(&[b'\\', character as u8]),
            '\n' => self.out.extend_from_slice(b"\\n"),
            '\r' => self.out.extend_from_slice(b"\\r"),
            '\t' => self.out.extend_from_slice(b"\\t"),
            _ if is_hostile(character) => {
                let code = character as u32;
                let digit = |shift: u32| b"0123456789abcdef"[(code >> shift) as usize & 0xf];
                self.out.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
            }
            _ => self.out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text);
        Ok(())
    }
}

/// Whether it is ASCII that goes out as it stands, as nearly all text is. Looking is most of what a line costs, so
/// bytes are looked at in blocks, by arithmetic that the compiler turns into a few instructions for all of them.
pub(super) fn is_harmless(bytes: &[u8]) -> bool {
    let one_by_one = || bytes.iter().all(|byte| byte.is_ascii() && !is_suspect(byte));
    in_blocks_of::<16>(bytes).or_else(|| in_blocks_of::<8>(bytes)).unwrap_or_else(one_by_one)
}

/// The same; `None` if there is not one block.
fn in_blocks_of<const N: usize>(bytes: &[u8]) -> Option<bool> {
    let is_harmless = |byte: &u8| (b' '..0x7f).contains(byte) & (*byte != b'"') & (*byte != b'\\');
    let all = |block: &[u8; N]| block.iter().fold(true, |all, byte| all & is_harmless(byte));
    // The last block overlaps the one before: twice does no harm.
    let last = bytes.last_chunk::<N>()?;
    Some(bytes.as_chunks::<N>().0.iter().all(all) && all(last))
}

/// Where the first byte is that needs a closer look.
fn first_suspect(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(is_suspect)
}

fn is_suspect(byte: &u8) -> bool {
    SUSPECT[usize::from(*byte)]
}

/// Control characters of both sets (ESC and the one-character CSI among them), the line and paragraph separators,
/// and what turns the direction of writing round. All are below U+10000.
fn is_hostile(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Bytes at which a character may begin that needs a closer look.
const SUSPECT: [bool; 256] = {
    let mut suspect = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        suspect[byte] = true;
        byte += 1;
    }
    suspect[b'"' as usize] = true;
    suspect[b'\\' as usize] = true;
    suspect[0x7f] = true;
    suspect[0xc2] = true; // U+0080 to U+00BF
    suspect[0xe2] = true; // U+2000 to U+2FFF
    suspect
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn escaped(text: &str, quoting: Quoting) -> String {
        let mut out = Vec::new();
        Text::new(&mut out, quoting).push(text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn hostile_characters_are_spelled_out() {
        assert_eq!(
            escaped("a\n\"b\"\\\u{1b}[31m\u{9b}2J\u{2028}\u{202e}ü“é", Quoting::Json),
            r#"a\n\"b\"\\\u001b[31m\u009b2J\u2028\u202eü“é"#
        );
        assert_eq!(escaped("a\r\n\"b\"\\\u{7f}", Quoting::Bare), r#"a\r\n"b"\\u007f"#);
    }

    proptest! {
        #[test]
        fn a_json_string_reads_back_as_it_was(text: String, wild in "[\\x00-\\x{a0}\\x{2020}-\\x{2070}]{0,40}") {
            for text in [text, wild] {
                let json = format!("\"{}\"", escaped(&text, Quoting::Json));
                prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), &*text);
                prop_assert!(!json.contains(is_hostile));
                prop_assert!(!escaped(&text, Quoting::Bare).contains(is_hostile));
            }
        }

        #[test]
        fn bytes_read_back_as_lossy_text(bytes: Vec<u8>) {
            let mut json = b"\"".to_vec();
            Text::new(&mut json, Quoting::Json).push_bytes(&bytes);
            json.push(b'"');
            prop_assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), String::from_utf8_lossy(&bytes));
        }
    }
}
