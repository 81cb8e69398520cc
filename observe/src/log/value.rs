//! One field's value.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::time::Duration;

use super::text::{Quoting, Text};

/// A field's value, borrowed until it is written.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Value<'a> {
    /// A truth value.
    Bool(bool),
    /// A whole number.
    I64(i64),
    /// A whole number.
    U64(u64),
    /// A whole number; a string beyond 64 bits, where JSON readers lose digits.
    I128(i128),
    /// A whole number; a string beyond 64 bits, where JSON readers lose digits.
    U128(u128),
    /// A number; `NaN`, `inf` and `-inf`, which JSON does not have, are strings.
    F64(f64),
    /// A time, as milliseconds to the microsecond.
    Millis(Duration),
    /// A word of the program's own, in which nothing has to be escaped: printable ASCII without `"` and `\`.
    Word(&'static str),
    /// Text.
    Str(&'a str),
    /// Text that may not be UTF-8; what is not becomes U+FFFD.
    Bytes(&'a [u8]),
    /// What `Display` says.
    Display(&'a dyn fmt::Display),
    /// What `Debug` says.
    Debug(&'a dyn fmt::Debug),
    /// An error and its sources, separated by colons.
    Error(&'a (dyn Error + 'static)),
}

impl Value<'_> {
    /// Appends the value as JSON.
    #[inline(always)] // so that where the kind is known, only its part is left
    pub(super) fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Bool(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
            Self::I64(value) => number(out, value),
            Self::U64(value) => number(out, value),
            Self::I128(value) => match i64::try_from(value) {
                Ok(value) => number(out, value),
                Err(_) => quoted(out, |text| text.push(itoa::Buffer::new().format(value))),
            },
            Self::U128(value) => match u64::try_from(value) {
                Ok(value) => number(out, value),
                Err(_) => quoted(out, |text| text.push(itoa::Buffer::new().format(value))),
            },
            Self::F64(value) if value.is_finite() => out.extend_from_slice(ryu::Buffer::new().format(value).as_bytes()),
            Self::F64(value) => quoted(out, |text| text.push_display(&value)),
            Self::Millis(value) => {
                let value = value.saturating_add(Duration::from_nanos(500));
                let whole = value.as_secs().saturating_mul(1000).saturating_add(value.subsec_millis().into());
                let part = value.subsec_micros() % 1000;
                let digit = |unit: u32| b'0' + (part / unit % 10) as u8;
                number(out, whole);
                out.extend_from_slice(&[b'.', digit(100), digit(10), digit(1)]);
            }
            Self::Word(word) => {
                debug_assert!(super::text::is_harmless(word.as_bytes()), "a word of {word:?}");
                out.push(b'"');
                out.extend_from_slice(word.as_bytes());
                out.push(b'"');
            }
            Self::Str(value) => quoted(out, |text| text.push(value)),
            Self::Bytes(value) => quoted(out, |text| text.push_bytes(value)),
            Self::Display(value) => quoted(out, |text| text.push_display(value)),
            Self::Debug(value) => quoted(out, |text| text.push_debug(value)),
            Self::Error(value) => quoted(out, |text| text.push_error(value)),
        }
    }
}

impl Text<'_> {
    /// Appends what `Display` says. One that fails may have said part; it must not lose the whole line.
    pub(super) fn push_display(&mut self, value: &(impl fmt::Display + ?Sized)) {
        if write!(self, "{value}").is_err() {
            self.push("(formatting failed)");
        }
    }

    /// Appends what `Debug` says. One that fails may have said part; it must not lose the whole line.
    pub(super) fn push_debug(&mut self, value: &(impl fmt::Debug + ?Sized)) {
        if write!(self, "{value:?}").is_err() {
            self.push("(formatting failed)");
        }
    }

    fn push_error(&mut self, error: &(dyn Error + 'static)) {
        self.push_display(error);
        let mut source = error.source();
        while let Some(error) = source {
            self.push(": ");
            self.push_display(error);
            source = error.source();
        }
    }
}

fn number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[inline(always)]
fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Text<'_>)) {
    out.push(b'"');
    write(&mut Text::new(out, Quoting::Json));
    out.push(b'"');
}

/// As it is logged.
impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut json = Vec::new();
        self.write(&mut json);
        f.write_str(&String::from_utf8_lossy(&json))
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::I64(value)
    }
}

impl From<u64> for Value<'_> {
    fn from(value: u64) -> Self {
        Self::U64(value)
    }
}

impl From<f64> for Value<'_> {
    fn from(value: f64) -> Self {
        Self::F64(value)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Str(value)
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(value: &'a [u8]) -> Self {
        Self::Bytes(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn read(value: Value<'_>) -> serde_json::Value {
        let mut out = Vec::new();
        value.write(&mut out);
        serde_json::from_slice(&out).unwrap_or_else(|error| panic!("{error}: {}", out.escape_ascii()))
    }

    #[test]
    fn numbers_that_json_lacks_are_strings() {
        assert_eq!(read(Value::F64(f64::NAN)), "NaN");
        assert_eq!(read(Value::F64(f64::NEG_INFINITY)), "-inf");
        assert_eq!(read(Value::U128(u128::MAX)), "340282366920938463463374607431768211455");
        assert_eq!(read(Value::I128(-5)), -5);
    }

    #[test]
    fn times_are_milliseconds_rounded_to_the_microsecond() {
        for (nanos, text) in [(0, "0.000"), (1_499, "0.001"), (1_500, "0.002"), (12_345_678_901, "12345.679")] {
            let mut out = Vec::new();
            Value::Millis(Duration::from_nanos(nanos)).write(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }

    #[test]
    fn an_error_brings_its_sources() {
        #[derive(Debug, thiserror::Error)]
        #[error("publish")]
        struct Outer(#[source] fmt::Error);
        let error = Outer(fmt::Error);
        assert_eq!(read(Value::Error(&error)), format!("publish: {}", fmt::Error));
    }

    #[test]
    fn a_value_whose_formatting_fails_is_still_a_string() {
        struct Broken;
        impl fmt::Display for Broken {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("half\n\"")?;
                Err(fmt::Error)
            }
        }
        assert_eq!(read(Value::Display(&Broken)), "half\n\"(formatting failed)");
    }

    proptest! {
        #[test]
        fn values_read_back_as_they_were(signed: i64, unsigned: u64, float in any::<f64>().prop_filter("finite", |f| f.is_finite()), text: String) {
            prop_assert_eq!(read(signed.into()), signed);
            prop_assert_eq!(read(unsigned.into()), unsigned);
            prop_assert_eq!(read(float.into()), float);
            prop_assert_eq!(read(text.as_str().into()), json!(text));
            prop_assert_eq!(read(Value::Debug(&text)), json!(format!("{text:?}")));
        }
    }
}
