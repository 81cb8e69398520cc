//! How one event becomes one line.

use std::time::SystemTime;

use tracing::Level;

use super::clock;
use super::text::{Quoting, Text};
use super::value::Value;
use crate::Identity;
use crate::correlation::Correlation;

/// How lines look, and who writes them.
#[derive(Clone, Debug)]
pub(crate) struct Style {
    look: Look,
    /// `,"service":"orders","version":"1.0"`, ready to be copied.
    who: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// One JSON object, as `CONTRACT` has it.
    Json,
    /// `time LEVEL target: message key=value …`
    Pretty { color: bool },
}

/// The fields of a line that is being written.
///
/// Names are not checked for repetition: give each once.
#[derive(Debug)]
pub struct Fields<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    look: Look,
    empty: bool,
}

impl Style {
    /// Lines of `identity`. Without one, JSON lines say neither service nor version.
    pub(crate) fn new(look: Look, identity: Option<&Identity>) -> Self {
        let mut who = Vec::new();
        for (key, value) in identity.into_iter().flat_map(|who| [("service", &who.service), ("version", &who.version)])
        {
            who.extend_from_slice(format!(",\"{key}\":").as_bytes());
            Value::Str(value).write(&mut who);
        }
        Self { look, who }
    }

    /// The same lines in another look.
    pub(crate) fn with_look(&self, look: Look) -> Self {
        Self { look, who: self.who.clone() }
    }

    pub(crate) fn look(&self) -> Look {
        self.look
    }

    /// Appends a whole line, its end included. Message and fields are closures, because either may run code of others.
    pub(crate) fn write(
        &self,
        out: &mut Vec<u8>,
        level: Level,
        target: &str,
        message: impl FnOnce(&mut Text<'_>),
        correlation: impl FnOnce(&mut Fields<'_>),
        fields: impl FnOnce(&mut Fields<'_>),
    ) {
        match self.look {
            Look::Json => self.write_json(out, level, target, message, correlation, fields),
            Look::Pretty { color } => write_pretty(out, color, level, target, message, correlation, fields),
        }
        out.push(b'\n');
    }

    /// Appends a line of the kit's own.
    pub(crate) fn notice(
        &self,
        out: &mut Vec<u8>,
        level: Level,
        target: &str,
        message: &str,
        fields: &[(&'static str, Value<'_>)],
    ) {
        let put_all = |line: &mut Fields<'_>| fields.iter().for_each(|(name, value)| line.put(name, *value));
        self.write(out, level, target, |text| text.push(message), |_| (), put_all);
    }

    fn write_json(
        &self,
        out: &mut Vec<u8>,
        level: Level,
        target: &str,
        message: impl FnOnce(&mut Text<'_>),
        correlation: impl FnOnce(&mut Fields<'_>),
        fields: impl FnOnce(&mut Fields<'_>),
    ) {
        out.extend_from_slice(b"{\"ts\":\"");
        clock::write(out, SystemTime::now());
        out.extend_from_slice(b"\",\"level\":\"");
        out.extend_from_slice(level.as_str().as_bytes());
        out.extend_from_slice(b"\",\"target\":");
        Value::Str(target).write(out);
        out.extend_from_slice(b",\"msg\":\"");
        message(&mut Text::new(out, Quoting::Json));
        out.push(b'"');
        out.extend_from_slice(&self.who);
        correlation(&mut Fields::new(out, Look::Json, false));
        out.extend_from_slice(b",\"fields\":{");
        fields(&mut Fields::new(out, Look::Json, true));
        out.extend_from_slice(b"}}");
    }
}

impl<'a> Fields<'a> {
    fn new(out: &'a mut Vec<u8>, look: Look, empty: bool) -> Self {
        Self { start: out.len(), out, look, empty }
    }

    /// What was appended so far.
    pub(super) fn written(&self) -> &[u8] {
        &self.out[self.start..]
    }

    /// Appends a field. Its name goes out as it stands, so it must not need to be escaped: letters, digits and `_`.
    #[inline(always)] // so that a name is a constant where it is copied
    pub fn put<'v>(&mut self, name: &'static str, value: impl Into<Value<'v>>) {
        debug_assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "a field called {name:?}");
        let value = value.into();
        if self.look != Look::Json {
            return self.put_pretty(|out| out.extend_from_slice(name.as_bytes()), |out| value.write(out));
        }
        self.separate();
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        value.write(self.out);
    }

    /// Appends a field whose name others have chosen.
    pub(super) fn put_escaped<'v>(&mut self, name: &str, value: impl Into<Value<'v>>) {
        let value = value.into();
        self.put_with(|out| Text::new(out, Quoting::Json).push(name), |out| value.write(out));
    }

    /// Appends a field whose value was written before.
    pub(super) fn put_written(&mut self, name: &str, json: &[u8]) {
        self.put_with(|out| Text::new(out, Quoting::Json).push(name), |out| out.extend_from_slice(json));
    }

    /// Appends what is known of `correlation`.
    #[inline]
    pub(crate) fn put_correlation(&mut self, correlation: &Correlation) {
        if let Some(trace) = &correlation.trace {
            self.put_digits("trace_id", &trace.trace_id_hex());
            self.put_digits("span_id", &trace.span_id_hex());
        }
        if let Some(request_id) = &correlation.request_id {
            self.put("request_id", request_id.as_ref());
        }
    }

    #[inline(always)]
    fn put_digits<const N: usize>(&mut self, name: &'static str, digits: &[u8; N]) {
        let quoted = |out: &mut Vec<u8>| {
            out.push(b'"');
            out.extend_from_slice(digits);
            out.push(b'"');
        };
        self.put_with(|out| out.extend_from_slice(name.as_bytes()), quoted);
    }

    #[inline(always)]
    fn put_with(&mut self, name: impl FnOnce(&mut Vec<u8>), write: impl FnOnce(&mut Vec<u8>)) {
        if self.look == Look::Json {
            self.separate();
            name(self.out);
            self.out.extend_from_slice(b"\":");
            write(self.out);
        } else {
            self.put_pretty(name, write);
        }
    }

    /// Begins a name in JSON.
    fn separate(&mut self) {
        if !self.empty {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.empty = false;
    }

    #[cold]
    fn put_pretty(&mut self, name: impl FnOnce(&mut Vec<u8>), write: impl FnOnce(&mut Vec<u8>)) {
        self.out.push(b' ');
        word(self.out, |out| {
            out.push(b'"');
            name(out);
            out.push(b'"');
        });
        self.out.push(b'=');
        word(self.out, write);
        self.empty = false;
    }
}

fn write_pretty(
    out: &mut Vec<u8>,
    color: bool,
    level: Level,
    target: &str,
    message: impl FnOnce(&mut Text<'_>),
    correlation: impl FnOnce(&mut Fields<'_>),
    fields: impl FnOnce(&mut Fields<'_>),
) {
    clock::write(out, SystemTime::now());
    let (name, paint) = match level {
        Level::ERROR => (" ERROR ", "\x1b[31m"),
        Level::WARN => ("  WARN ", "\x1b[33m"),
        Level::INFO => ("  INFO ", "\x1b[32m"),
        Level::DEBUG => (" DEBUG ", "\x1b[34m"),
        _ => (" TRACE ", "\x1b[35m"),
    };
    let (paint, plain) = if color { (paint, "\x1b[0m") } else { ("", "") };
    for part in [paint, name, plain] {
        out.extend_from_slice(part.as_bytes());
    }
    Text::new(out, Quoting::Bare).push(target);
    out.extend_from_slice(b": ");
    message(&mut Text::new(out, Quoting::Bare));
    let mut line = Fields::new(out, Look::Pretty { color }, true);
    fields(&mut line);
    correlation(&mut line);
}

/// Appends JSON, without the quotes if it is a string that can do without.
fn word(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.:/+@%#".contains(byte);
    if let [b'"', inner @ .., b'"'] = &out[start..]
        && !inner.is_empty()
        && inner.iter().all(plain)
    {
        out.pop();
        out.remove(start);
    }
}
