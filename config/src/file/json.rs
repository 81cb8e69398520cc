use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Fault, Lines, MAX_DEPTH, Place};
use crate::raw::{Raw, Spot};

/// Parses JSON, a level at a time: a borrowed `RawValue` is a slice of the text, so its address tells its line.
pub(crate) fn parse(text: &str, place: &Place<'_>) -> Result<Spot, Vec<Fault>> {
    let mut faults = Vec::new();
    let reader = Reader { text, lines: Lines::of(text), place };
    match serde_json::from_str::<&RawValue>(text) {
        Ok(top) => {
            let spot = reader.value(top, 0, &mut faults);
            if faults.is_empty() { Ok(spot) } else { Err(faults) }
        }
        Err(error) => Err(vec![syntax(&error, error.line())]),
    }
}

struct Reader<'a> {
    text: &'a str,
    lines: Lines,
    place: &'a Place<'a>,
}

impl<'a> Reader<'a> {
    fn value(&self, raw: &'a RawValue, depth: usize, faults: &mut Vec<Fault>) -> Spot {
        let text = raw.get();
        let line = self.lines.at(text.as_ptr() as usize - self.text.as_ptr() as usize);
        let level = Level { reader: self, line, depth, faults };
        let value = if depth > MAX_DEPTH {
            faults.push(Fault::new(line, format!("nested deeper than {MAX_DEPTH} levels")));
            Raw::Null
        } else if text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
            text.parse().map_or_else(|_| Raw::Float(text.to_owned()), Raw::Int)
        } else {
            match level.deserialize(&mut serde_json::Deserializer::from_str(text)) {
                Ok(value) => value,
                Err(error) => {
                    faults.push(syntax(&error, line + error.line().saturating_sub(1)));
                    Raw::Null
                }
            }
        };
        Spot::new(value, &self.place.line(line))
    }
}

struct Level<'r, 'a> {
    reader: &'r Reader<'a>,
    line: usize,
    depth: usize,
    faults: &'r mut Vec<Fault>,
}

impl<'a> DeserializeSeed<'a> for Level<'_, 'a> {
    type Value = Raw;

    fn deserialize<D: serde::Deserializer<'a>>(self, deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Level<'_, 'a> {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(flag))
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Str(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<&'a RawValue>()? {
            items.push(self.reader.value(item, self.depth + 1, self.faults));
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries: Vec<(String, Spot)> = Vec::new();
        let mut seen = HashSet::new();
        while let Some((key, value)) = map.next_entry::<Cow<'a, str>, &'a RawValue>()? {
            let spot = self.reader.value(value, self.depth + 1, self.faults);
            if !seen.insert(key.to_string()) {
                let line = spot.origin.rsplit_once(':').and_then(|(_, line)| line.parse().ok()).unwrap_or(self.line);
                self.faults
                    .push(Fault::new(line, format!("the key {key:?} is given twice")).hint("remove one of them"));
                continue;
            }
            entries.push((key.into_owned(), spot));
        }
        Ok(Raw::Table(entries))
    }
}

/// serde_json's syntax messages name what is missing and repeat nothing of the text; the place at their end is ours to say.
fn syntax(error: &serde_json::Error, line: usize) -> Fault {
    let message = error.to_string();
    let what = message.rsplit_once(" at line ").map_or(message.as_str(), |(what, _)| what);
    Fault::new(line.max(1), format!("not valid JSON: {what}"))
}
