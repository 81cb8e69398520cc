use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A span of time, written as in `"10s"`, `"1m30s"`, `"500ms"` or `"1h2m3.5s"`.
///
/// The units are `ns`, `us` (or `µs`), `ms`, `s`, `m`, `h` and `d` (24 hours). Every number has a unit, except that
/// `"0"` is allowed. What Go's `time.ParseDuration` reads is read here too, but for negative values, which are refused.
/// A bare number is refused in files, in the environment and in flags alike: nobody can tell what it counts.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(std::time::Duration);

const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];
const DAY: u128 = 86_400_000_000_000;

impl Duration {
    /// No time at all.
    pub const ZERO: Self = Self(std::time::Duration::ZERO);

    /// Makes a duration of whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(std::time::Duration::from_secs(secs))
    }

    /// Makes a duration of whole milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(std::time::Duration::from_millis(millis))
    }

    /// Returns the standard library's duration.
    pub const fn get(self) -> std::time::Duration {
        self.0
    }
}

impl Deref for Duration {
    type Target = std::time::Duration;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl From<std::time::Duration> for Duration {
    fn from(inner: std::time::Duration) -> Self {
        Self(inner)
    }
}

impl From<Duration> for std::time::Duration {
    fn from(outer: Duration) -> Self {
        outer.0
    }
}

/// Why a text is no [`Duration`]; says what is expected and never repeats the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a duration such as \"10s\" or \"1m30s\"")]
pub struct ParseDurationError(());

impl FromStr for Duration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        nanos(text)
            .and_then(|total| {
                let secs = u64::try_from(total / 1_000_000_000).ok()?;
                Some(Self(std::time::Duration::new(secs, (total % 1_000_000_000) as u32)))
            })
            .ok_or(ParseDurationError(()))
    }
}

/// Prints the form that is read, largest unit first: `1m30s`, `500ms`, `0s`.
impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (secs, nanos) = (self.0.as_secs(), self.0.subsec_nanos());
        if secs == 0 && nanos == 0 {
            return f.write_str("0s");
        }
        for (count, unit) in [(secs / 3600, "h"), (secs / 60 % 60, "m"), (secs % 60, "s")] {
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        for (count, unit) in [(nanos / 1_000_000, "ms"), (nanos / 1000 % 1000, "us"), (nanos % 1000, "ns")] {
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    // `format: "duration"` means ISO 8601 to editors, which would underline "10s": hence a format of our own.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "x-format": "duration",
            "pattern": r"^(0|([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d))+$",
        })
    }
}

fn nanos(text: &str) -> Option<u128> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    match rest {
        "" => return None,
        "0" => return Some(0),
        _ => {}
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let number = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let (digits, after) = rest.split_at(number);
        let unit = after.len() - after.trim_start_matches(|c: char| !c.is_ascii_digit() && c != '.').len();
        let (name, after) = after.split_at(unit);
        total = total.checked_add(amount(digits, factor(name)?)?)?;
        rest = after;
    }
    Some(total)
}

fn factor(name: &str) -> Option<u128> {
    if name == "d" {
        return Some(DAY);
    }
    UNITS.iter().find(|(unit, _)| *unit == name).map(|(_, nanos)| *nanos)
}

/// `1.5` of a unit, in nanoseconds, without a float in between; what is below a nanosecond is cut off.
fn amount(digits: &str, factor: u128) -> Option<u128> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || digits.len() > 40 {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = whole.checked_mul(factor)?;
    let mut scale = factor;
    for digit in fraction.bytes() {
        scale /= 10;
        total = total.checked_add(scale.checked_mul(u128::from(digit - b'0'))?)?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<std::time::Duration> {
        text.parse::<Duration>().ok().map(Duration::get)
    }

    #[test]
    fn reads_what_go_reads() {
        let cases = [
            ("10s", 10_000_000_000_u64),
            ("1m30s", 90_000_000_000),
            ("1h2m3.5s", 3_723_500_000_000),
            ("500ms", 500_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("3us", 3000),
            ("3µs", 3000),
            ("7ns", 7),
            ("0", 0),
            ("0s", 0),
            ("+1s", 1_000_000_000),
            ("2d", 172_800_000_000_000),
        ];
        for (text, nanos) in cases {
            assert_eq!(parsed(text), Some(std::time::Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn refuses_what_cannot_be_told() {
        for text in ["", "+", "10", "-1s", "s", "1 s", "1x", "1.2.3s", ".s", "1s2", "99999999999999999999999h", "１s"]
        {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[test]
    fn prints_what_it_reads() {
        for text in ["0s", "1m30s", "500ms", "1h2m3s", "3s500ms", "1us1ns"] {
            assert_eq!(text.parse::<Duration>().unwrap().to_string(), text);
        }
    }
}
