//! One value against one leaf of the schema: strict, and the same for every source.

use std::net::SocketAddr;

use config::ValueKind;

use crate::raw::Raw;
use crate::redact::redact_text;
use crate::schema::{Format, Kind, Text};
use crate::{ByteSize, Duration, suggest};

/// Why a value does not fit.
pub(crate) struct Misfit {
    /// Follows the value: `is out of range`. Empty when the kind of value alone says it.
    pub(crate) why: &'static str,
    /// May repeat the value: not to be shown for secrets.
    pub(crate) hint: Option<String>,
}

/// Gives the value for a scalar leaf.
pub(crate) fn fit(kind: &Kind, raw: &Raw) -> Result<ValueKind, Misfit> {
    match kind {
        Kind::Bool => boolean(raw).map(ValueKind::Boolean),
        Kind::Int { min, max } => int(raw, *min, *max),
        Kind::Float { min, max } => float(raw, *min, *max),
        Kind::Text(text) => string(raw, text).map(ValueKind::String),
        _ => Err(misfit("", None)),
    }
}

/// How a value is spoken of: with the value itself, unless that is to be kept back.
pub(crate) fn describe(raw: &Raw, hide: bool) -> String {
    let (value, what) = match raw {
        Raw::Null => return "has no value".to_owned(),
        Raw::List(_) => return "is a list".to_owned(),
        Raw::Table(_) => return "is a table".to_owned(),
        Raw::Bool(flag) => (flag.to_string(), "is true or false"),
        Raw::Int(number) => (number.to_string(), "is a number"),
        Raw::Float(number) => (number.clone(), "is a number"),
        Raw::Str(text) => (quoted(text), "is text"),
        Raw::Plain(text) | Raw::Text(text) => (quoted(text), "does not fit"),
    };
    if hide { format!("the value (not shown) {what}") } else { format!("{value} {what}") }
}

/// The value alone, for a message of another form.
pub(crate) fn show(raw: &Raw, hide: bool) -> String {
    match raw {
        _ if hide => "the value (not shown)".to_owned(),
        Raw::Int(number) => number.to_string(),
        Raw::Float(number) => number.clone(),
        Raw::Bool(flag) => flag.to_string(),
        Raw::Str(text) | Raw::Plain(text) | Raw::Text(text) => quoted(text),
        Raw::Null | Raw::List(_) | Raw::Table(_) => "the value".to_owned(),
    }
}

/// Reads the text of a plain YAML scalar, or of a JSON-like text, where no schema says what it is.
pub(crate) fn guess(text: &str) -> ValueKind {
    match (text, whole(text)) {
        ("true", _) => ValueKind::Boolean(true),
        ("false", _) => ValueKind::Boolean(false),
        (_, Some(number)) => number_kind(number),
        _ => real(text).map_or_else(|| ValueKind::String(text.to_owned()), ValueKind::Float),
    }
}

pub(crate) fn number_kind(number: i128) -> ValueKind {
    match (i64::try_from(number), u64::try_from(number)) {
        (Ok(number), _) => ValueKind::I64(number),
        (_, Ok(number)) => ValueKind::U64(number),
        _ => ValueKind::I128(number),
    }
}

/// A form in which texts that mean the same are equal.
pub(crate) fn normal(kind: &Kind, text: &str) -> Option<String> {
    if let Kind::Text(Text { format: Some(format), .. }) = kind {
        return match format {
            Format::Duration => text.parse::<Duration>().ok().map(|value| value.to_string()),
            Format::ByteSize => text.parse::<ByteSize>().ok().map(|value| value.get().to_string()),
            Format::SocketAddr => text.parse::<SocketAddr>().ok().map(|value| value.to_string()),
        };
    }
    match fit(kind, &Raw::Text(text.to_owned())).ok()? {
        ValueKind::Boolean(flag) => Some(flag.to_string()),
        ValueKind::Float(number) => Some(number.to_string()),
        _ => None,
    }
}

fn boolean(raw: &Raw) -> Result<bool, Misfit> {
    match raw {
        Raw::Bool(flag) => Ok(*flag),
        Raw::Plain(text) => match text.as_str() {
            "true" | "True" | "TRUE" => Ok(true),
            "false" | "False" | "FALSE" => Ok(false),
            "yes" | "Yes" | "YES" | "y" | "on" | "On" | "ON" => Err(misfit("", Some("write true".to_owned()))),
            "no" | "No" | "NO" | "n" | "off" | "Off" | "OFF" => Err(misfit("", Some("write false".to_owned()))),
            _ => Err(misfit("", None)),
        },
        Raw::Text(text) => truth(text).ok_or_else(|| misfit("", None)),
        Raw::Str(text) if truth(text).is_some() => Err(misfit("", Some("take the quotes away".to_owned()))),
        _ => Err(misfit("", None)),
    }
}

/// The words of Go's `strconv.ParseBool`.
pub(crate) fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn int(raw: &Raw, min: i128, max: i128) -> Result<ValueKind, Misfit> {
    let number = match raw {
        Raw::Int(number) => *number,
        Raw::Plain(text) | Raw::Text(text) => whole(text).ok_or_else(|| misfit("", plainer(text)))?,
        Raw::Str(text) if whole(text).is_some() => return Err(misfit("", Some("take the quotes away".to_owned()))),
        Raw::Float(_) => return Err(misfit("is not a whole number", None)),
        _ => return Err(misfit("", None)),
    };
    if number < min || number > max {
        return Err(misfit("is out of range", None));
    }
    Ok(number_kind(number))
}

/// `0777` is 511 to some readers and 777 to others: neither is taken.
fn plainer(text: &str) -> Option<String> {
    let digits = text.trim_start_matches('0');
    let doubtful = digits.len() < text.len() && whole(digits).is_some();
    doubtful.then(|| format!("a leading zero means octal to some; write {digits}"))
}

/// A whole number in plain digits: no sign but `-`, no leading zero, no space.
fn whole(text: &str) -> Option<i128> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    (plain && (digits == "0" || !digits.starts_with('0'))).then(|| text.parse().ok()).flatten()
}

fn float(raw: &Raw, min: f64, max: f64) -> Result<ValueKind, Misfit> {
    let number = match raw {
        Raw::Int(number) => *number as f64,
        Raw::Float(text) | Raw::Plain(text) | Raw::Text(text) => real(text).ok_or_else(|| misfit("", None))?,
        Raw::Str(text) if real(text).is_some() => return Err(misfit("", Some("take the quotes away".to_owned()))),
        _ => return Err(misfit("", None)),
    };
    if number < min || number > max {
        return Err(misfit("is out of range", None));
    }
    Ok(ValueKind::Float(number))
}

/// A finite number; `inf` and `nan` are words to `parse` but no values for a configuration.
fn real(text: &str) -> Option<f64> {
    let plain = text.starts_with(|c: char| c == '-' || c == '.' || c.is_ascii_digit());
    let number: f64 = plain.then(|| text.replace('_', "").parse().ok()).flatten()?;
    (number.is_finite() && !text.ends_with('_')).then_some(number)
}

fn string(raw: &Raw, leaf: &Text) -> Result<String, Misfit> {
    let text = match raw {
        Raw::Str(text) | Raw::Plain(text) | Raw::Text(text) => text.clone(),
        Raw::Int(number) if leaf.format == Some(Format::ByteSize) => number.to_string(),
        Raw::Int(number) if leaf.format == Some(Format::Duration) => return Err(misfit("", unit(&number.to_string()))),
        Raw::Null | Raw::List(_) | Raw::Table(_) => return Err(misfit("", None)),
        _ => return Err(misfit("", Some("put it in quotes".to_owned()))),
    };
    if leaf.words.contains(&text) {
        return Ok(text);
    }
    if !leaf.choices.is_empty() {
        let meant = || suggest::nearest(&text, leaf.choices.iter().map(String::as_str));
        return match leaf.choices.contains(&text) {
            true => Ok(text),
            false => Err(misfit("is not known", meant().map(|meant| format!("did you mean {meant:?}?")))),
        };
    }
    match leaf.format {
        Some(Format::Duration) => {
            text.parse::<Duration>().map(|_| ()).map_err(|_| misfit("is no duration", unit(&text)))?
        }
        Some(Format::ByteSize) => text.parse::<ByteSize>().map(|_| ()).map_err(|_| misfit("is no size", None))?,
        Some(Format::SocketAddr) => {
            text.parse::<SocketAddr>().map(|_| ()).map_err(|_| misfit("is no address", address(&text)))?;
        }
        None => {}
    }
    let length = text.chars().count();
    if length < leaf.min {
        return Err(misfit("is too short", None));
    }
    if leaf.max.is_some_and(|max| length > max) {
        return Err(misfit("is too long", None));
    }
    Ok(text)
}

fn unit(number: &str) -> Option<String> {
    whole(number).filter(|number| *number >= 0).map(|number| format!("did you mean \"{number}s\"?"))
}

fn address(text: &str) -> Option<String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().ok()?),
        None => ("", text.parse::<u16>().ok()?),
    };
    match host {
        "" | "*" => Some(format!("did you mean \"0.0.0.0:{port}\"?")),
        "localhost" => Some(format!("did you mean \"127.0.0.1:{port}\"?")),
        _ if host.contains(':') => Some(format!("did you mean \"[{host}]:{port}\"?")),
        _ => Some("names are not looked up; give the number".to_owned()),
    }
}

fn quoted(text: &str) -> String {
    const MOST: usize = 80;
    let text = &redact_text(text);
    if text.chars().count() <= MOST {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(MOST).collect();
    format!("{start:?}…")
}

fn misfit(why: &'static str, hint: Option<String>) -> Misfit {
    Misfit { why, hint }
}
