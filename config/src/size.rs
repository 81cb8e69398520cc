use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes, written as in `"64KiB"`, `"2MiB"`, `"1.5GiB"` or `"10MB"`.
///
/// `KiB`, `MiB`, `GiB`, `TiB` are powers of 1024; `KB`, `MB`, `GB`, `TB` are powers of 1000; case does not matter, and a
/// space may stand before the unit. A bare number counts bytes. A value that is no whole number of bytes, or more than
/// `u64` holds, is refused.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// Makes a size of so many bytes.
    pub const fn bytes(count: u64) -> Self {
        Self(count)
    }

    /// Makes a size of so many KiB (1024 bytes).
    ///
    /// # Panics
    /// If the bytes do not fit `u64`.
    pub const fn kib(count: u64) -> Self {
        Self(count.checked_mul(1 << 10).expect("a size that fits u64"))
    }

    /// Makes a size of so many MiB (1024 KiB).
    ///
    /// # Panics
    /// If the bytes do not fit `u64`.
    pub const fn mib(count: u64) -> Self {
        Self(count.checked_mul(1 << 20).expect("a size that fits u64"))
    }

    /// Returns the number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the number of bytes as `usize`, or `usize::MAX` where it does not fit.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl From<ByteSize> for u64 {
    fn from(size: ByteSize) -> Self {
        size.0
    }
}

/// Why a text is no [`ByteSize`]; says what is expected and never repeats the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a size such as \"64KiB\" or \"2MiB\"")]
pub struct ParseByteSizeError(());

impl FromStr for ByteSize {
    type Err = ParseByteSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        count(text).map(Self).ok_or(ParseByteSizeError(()))
    }
}

/// Prints the form that is read, in the largest unit of 1024 that divides the size: `64KiB`, `1000B`.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = UNITS.iter().filter(|(_, factor)| factor.is_power_of_two());
        let (unit, factor) =
            binary.clone().find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor)).unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl fmt::Debug for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Size;
        impl Visitor<'_> for Size {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"64KiB\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: serde::de::Error>(self, count: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(count))
            }

            fn visit_i64<E: serde::de::Error>(self, count: i64) -> Result<ByteSize, E> {
                u64::try_from(count).map(ByteSize).map_err(|_| E::custom(ParseByteSizeError(())))
            }
        }
        deserializer.deserialize_any(Size).map_err(D::Error::custom)
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "minimum": 0,
            "x-format": "byte-size",
            "pattern": r"^[0-9]+(\.[0-9]+)? ?([kKmMgGtT][iI]?)?[bB]?$",
        })
    }
}

fn count(text: &str) -> Option<u64> {
    let end = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
    let (digits, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let factor = if unit.is_empty() {
        1
    } else {
        UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor)?
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let part = u128::from(fraction.parse::<u64>().ok()?) * u128::from(factor);
    let scale = 10_u128.pow(fraction.len() as u32);
    let whole = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    part.is_multiple_of(scale).then(|| whole.checked_add((part / scale) as u64)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes() {
        let cases =
            [("64KiB", 65536), ("2MiB", 2_097_152), ("1.5KiB", 1536), ("10 MB", 10_000_000), ("7", 7), ("7b", 7)];
        for (text, bytes) in cases {
            assert_eq!(text.parse::<ByteSize>().map(ByteSize::get), Ok(bytes), "{text}");
        }
        for text in ["", "KiB", "-1KiB", "1.5", "1KiBs", "99999999999TiB", "0.3KiB", "1..5KiB", "1 kib "] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn prints_what_it_reads() {
        for text in ["64KiB", "2MiB", "1000B", "0B", "1025B", "1GiB"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        assert_eq!(serde_json::from_str::<ByteSize>("65536").unwrap(), ByteSize::kib(64));
    }
}
