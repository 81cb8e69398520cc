//! Bytes, taken apart into what a target needs.

use std::borrow::Cow;

/// What is left of the bytes. At their end everything is zero or empty.
#[derive(Debug)]
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    /// As many bytes as the first one says.
    pub(crate) fn part(&mut self) -> &'a [u8] {
        let [length] = self.array();
        let (part, rest) = self.0.split_at(usize::from(length).min(self.0.len()));
        self.0 = rest;
        part
    }

    /// The same as text; what is none is replaced.
    pub(crate) fn text(&mut self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.part())
    }

    /// The bytes of a number.
    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let n = N.min(self.0.len());
        let (taken, rest) = self.0.split_at(n);
        array[..n].copy_from_slice(taken);
        self.0 = rest;
        array
    }
}
