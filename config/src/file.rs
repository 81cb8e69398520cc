//! Configuration files: found, read, and parsed into raw values that know their line.

mod json;
mod toml;
mod yaml;

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use crate::problem::Problem;
use crate::raw::{Origin, Spot};

pub(crate) use json::parse as parse_json;

/// A configuration is small; what is larger was given by mistake.
const MAX_FILE: u64 = 4 * 1024 * 1024;
/// Deeper nesting than any configuration has, and less than any stack.
const MAX_DEPTH: usize = 64;

/// Something wrong with a file as such, at a line. The text never repeats what stands there.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) line: usize,
    pub(crate) what: String,
    pub(crate) hint: &'static str,
}

impl Fault {
    fn new(line: usize, what: impl Into<String>) -> Self {
        Self { line, what: what.into(), hint: "" }
    }

    fn hint(mut self, hint: &'static str) -> Self {
        self.hint = hint;
        self
    }
}

/// Gives an origin for a line.
pub(crate) struct Place<'a>(pub(crate) &'a str);

impl Place<'_> {
    fn line(&self, line: usize) -> Origin {
        Arc::new(format!("{}:{line}", self.0))
    }
}

/// Reads one file. On failure the problems are pushed and nothing is returned.
pub(crate) fn load(path: &Path, problems: &mut Vec<Problem>) -> Option<Spot> {
    let name = path.display().to_string();
    let parse = match path.extension().and_then(OsStr::to_str) {
        Some("toml") => toml::parse,
        Some("yaml" | "yml") => yaml::parse,
        Some("json") => json::parse,
        _ => {
            let what = "cannot tell the format; expected a name that ends in .toml, .yaml, .yml or .json";
            problems.push(Problem::new("-", name, what));
            return None;
        }
    };
    let text = match read(path, MAX_FILE) {
        Ok(text) => text,
        Err(what) => {
            problems.push(Problem::new("-", name, what));
            return None;
        }
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    parse(text, &Place(&name))
        .map_err(|faults| {
            let problem =
                |fault: Fault| Problem::new("-", format!("{name}:{}", fault.line), fault.what).hint(fault.hint);
            problems.extend(faults.into_iter().map(problem));
        })
        .ok()
}

/// Reads a whole regular file as UTF-8, or says why not. Pipes and devices are refused: opening one may wait for ever.
pub(crate) fn read(path: &Path, limit: u64) -> Result<String, String> {
    let metadata = std::fs::metadata(path).map_err(|error| cannot_read(&error))?;
    if !metadata.is_file() {
        return Err("cannot be read: it is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| cannot_read(&error))?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| cannot_read(&error))?;
    if bytes.len() as u64 > limit {
        return Err(format!("is larger than {}", crate::ByteSize::bytes(limit)));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
        format!("is not UTF-8 text (line {line})")
    })
}

fn cannot_read(error: &std::io::Error) -> String {
    format!("cannot be read: {error}")
}

/// Turns byte offsets into line numbers.
pub(crate) struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect())
    }

    fn at(&self, offset: usize) -> usize {
        1 + self.0.partition_point(|newline| *newline < offset)
    }
}
