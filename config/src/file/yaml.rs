use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, StrInput, Tag};

use super::{Fault, MAX_DEPTH, Place};
use crate::raw::{Raw, Spot};

/// Anchors multiply: ten lines can mean a billion values.
const MAX_NODES: usize = 100_000;

pub(crate) fn parse(text: &str, place: &Place<'_>) -> Result<Spot, Vec<Fault>> {
    let lines = 1 + text.matches('\n').count();
    let mut reader = Reader { parser: Parser::new_from_str(text), place, lines, anchors: HashMap::new(), nodes: 0 };
    reader.document().map_err(|fault| vec![fault])
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    place: &'a Place<'a>,
    /// How many lines there are. To YAML a carriage return ends a line, too, and so does the end of the text; no editor
    /// shows those.
    lines: usize,
    anchors: HashMap<usize, (Spot, usize)>,
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Result<Spot, Fault> {
        let mut top = None;
        loop {
            let (event, line) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                Event::StreamEnd => {
                    return Ok(top.unwrap_or_else(|| Spot::new(Raw::Table(Vec::new()), &self.place.line(1))));
                }
                Event::DocumentStart(_) if top.is_some() => {
                    return Err(Fault::new(line, "a second document begins here").hint("keep one document in a file"));
                }
                Event::DocumentStart(_) => {}
                first => top = Some(self.value(first, line, 0)?),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, usize), Fault> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, self.line(&span.start))),
            Some(Err(error)) => Err(Fault::new(self.line(error.marker()), format!("not valid YAML: {}", error.info()))),
            None => Ok((Event::StreamEnd, 1)),
        }
    }

    fn line(&self, at: &Marker) -> usize {
        at.line().clamp(1, self.lines)
    }

    fn value(&mut self, event: Event<'a>, line: usize, depth: usize) -> Result<Spot, Fault> {
        self.count(1, line)?;
        if depth > MAX_DEPTH {
            return Err(Fault::new(line, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let before = self.nodes;
        let (raw, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => (scalar(&text, style, tag.as_deref(), line)?, anchor),
            Event::SequenceStart(anchor, tag) => {
                refuse(tag.as_deref(), "seq", line)?;
                (self.list(depth)?, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                refuse(tag.as_deref(), "map", line)?;
                (self.table(depth)?, anchor)
            }
            Event::Alias(anchor) => {
                let Some((spot, nodes)) = self.anchors.get(&anchor).cloned() else {
                    return Err(Fault::new(line, "this alias stands inside what it names"));
                };
                self.count(nodes, line)?;
                return Ok(spot);
            }
            _ => return Err(Fault::new(line, "not valid YAML: a value is missing")),
        };
        let spot = Spot::new(raw, &self.place.line(line));
        if anchor > 0 {
            self.anchors.insert(anchor, (spot.clone(), 1 + self.nodes - before));
        }
        Ok(spot)
    }

    fn list(&mut self, depth: usize) -> Result<Raw, Fault> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Raw::List(items)),
                (event, line) => items.push(self.value(event, line, depth + 1)?),
            }
        }
    }

    fn table(&mut self, depth: usize) -> Result<Raw, Fault> {
        let mut entries: Vec<(String, Spot)> = Vec::new();
        let mut seen = HashSet::new();
        loop {
            let (key, at) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(Raw::Table(entries)),
                (Event::Scalar(key, ..), line) => (key.into_owned(), line),
                (_, line) => return Err(Fault::new(line, "a key must be plain text")),
            };
            if key == "<<" {
                return Err(Fault::new(at, "merge keys (<<) are not supported").hint("write the keys out"));
            }
            if !seen.insert(key.clone()) {
                return Err(Fault::new(at, format!("the key {key:?} is given twice")).hint("remove one of them"));
            }
            let (event, _) = self.next()?;
            let mut spot = self.value(event, at, depth + 1)?;
            // An aliased value is where it is used, not where its anchor stands.
            spot.origin = self.place.line(at);
            entries.push((key, spot));
        }
    }

    fn count(&mut self, nodes: usize, line: usize) -> Result<(), Fault> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(Fault::new(line, format!("more than {MAX_NODES} values, aliases counted")));
        }
        Ok(())
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, line: usize) -> Result<Raw, Fault> {
    if let Some(tag) = tag {
        let quoted = tag.suffix == "str" && tag.is_yaml_core_schema() || tag.handle == "!" && tag.suffix.is_empty();
        return if quoted { Ok(Raw::Str(text.to_owned())) } else { Err(unknown_tag(line)) };
    }
    Ok(match (style, text) {
        (ScalarStyle::Plain, "" | "~" | "null" | "Null" | "NULL") => Raw::Null,
        (ScalarStyle::Plain, _) => Raw::Plain(text.to_owned()),
        _ => Raw::Str(text.to_owned()),
    })
}

fn refuse(tag: Option<&Tag>, own: &str, line: usize) -> Result<(), Fault> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == own) => Err(unknown_tag(line)),
        _ => Ok(()),
    }
}

fn unknown_tag(line: usize) -> Fault {
    Fault::new(line, "this tag (!) is not supported").hint("take it away: the key says what type its value has")
}
