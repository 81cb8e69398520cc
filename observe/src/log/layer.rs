//! What turns tracing's events into lines.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::limit::{Limiter, Place, fingerprint};
use super::line::Style;
use super::queue::Queue;
use super::redact::{MASK, Redaction};
use super::text::Text;
use super::value::Value;
use crate::correlation;

/// Writes one line for each event: its own fields, then those of the spans around it, the innermost first. Of two
/// fields with one name the inner is shown.
pub(super) struct LogLayer {
    style: Arc<Style>,
    queue: Arc<Queue>,
    redaction: Redaction,
    limiter: Limiter,
}

/// The fields of a span, as JSON, kept with the span.
#[derive(Default)]
struct SpanFields(Vec<(&'static str, Vec<u8>)>);

/// Memory that a thread uses again for its next event.
#[derive(Default)]
struct Scratch {
    line: Vec<u8>,
    seen: Vec<&'static str>,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = const { Cell::new(Scratch { line: Vec::new(), seen: Vec::new() }) };
}

/// A line longer than this gives its memory back.
const KEPT: usize = 64 * 1024;

impl LogLayer {
    pub(super) fn new(style: Arc<Style>, queue: Arc<Queue>, redaction: Redaction, limiter: Limiter) -> Self {
        Self { style, queue, redaction, limiter }
    }

    /// Shows each field to `each`, secrets masked.
    fn visitor<'a>(
        &'a self,
        mut each: impl FnMut(&'static str, Value<'_>) + 'a,
    ) -> Visitor<impl FnMut(&'static str, Value<'_>) + 'a> {
        Visitor(move |name, value: Value<'_>| {
            each(name, if self.redaction.hides(name) { Value::Str(MASK) } else { value })
        })
    }
}

impl<S> Layer<S> for LogLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, cx: Context<'_, S>) {
        let mut fields = SpanFields::default();
        attributes.record(&mut self.visitor(|name, value| fields.set(name, value)));
        if let Some(span) = cx.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, cx: Context<'_, S>) {
        // Values are formatted before the span is locked: formatting may run code that logs.
        let mut changes = SpanFields::default();
        record.record(&mut self.visitor(|name, value| changes.set(name, value)));
        if let Some(span) = cx.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<SpanFields>()
        {
            changes.0.into_iter().for_each(|(name, json)| fields.insert(name, json));
        }
    }

    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        // Taken, not borrowed: formatting a field may log as well.
        let Scratch { mut line, mut seen } = SCRATCH.try_with(Cell::take).unwrap_or_default();
        let from_log = event.normalized_metadata(); // Events of the `log` crate hide their metadata in fields.
        let metadata = from_log.as_ref().unwrap_or_else(|| event.metadata());
        let (said, mut admitted) = (Cell::new(0), true);
        self.style.write(
            &mut line,
            *metadata.level(),
            metadata.target(),
            |text| {
                event.record(&mut Message(text));
                said.set(fingerprint(0, text.written()));
            },
            |ids| correlation::read(|now| ids.put_correlation(now)).unwrap_or_default(),
            |fields| {
                event.record(&mut self.visitor(|name, value| {
                    if name != "message" && !(from_log.is_some() && name.starts_with("log.")) && !seen.contains(&name) {
                        seen.push(name);
                        fields.put_escaped(name, value);
                    }
                }));
                for span in cx.event_scope(event).into_iter().flatten() {
                    let extensions = span.extensions();
                    for (name, json) in extensions.get::<SpanFields>().iter().flat_map(|fields| &fields.0) {
                        if !seen.contains(name) {
                            seen.push(name);
                            fields.put_written(name, json);
                        }
                    }
                }
                let place = Place::of(metadata, from_log.is_some());
                let said = fingerprint(said.get(), fields.written());
                match self.limiter.admit(place, *metadata.level(), said, Instant::now()) {
                    Some(0) => {}
                    Some(suppressed) => fields.put("suppressed", suppressed),
                    None => admitted = false,
                }
            },
        );
        if admitted {
            self.queue.push(&line);
        }
        line.clear();
        seen.clear();
        if line.capacity() <= KEPT {
            let _ = SCRATCH.try_with(|scratch| scratch.set(Scratch { line, seen }));
        }
    }
}

impl SpanFields {
    fn set(&mut self, name: &'static str, value: Value<'_>) {
        let mut json = Vec::new();
        value.write(&mut json);
        self.insert(name, json);
    }

    fn insert(&mut self, name: &'static str, json: Vec<u8>) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some(field) => field.1 = json,
            None => self.0.push((name, json)),
        }
    }
}

/// Writes the message and passes over the fields.
struct Message<'a, 'b>(&'a mut Text<'b>);

impl Visit for Message<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0.push_debug(value);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.0.push(value);
        }
    }
}

/// Shows each field to a closure.
struct Visitor<F>(F);

impl<F: FnMut(&'static str, Value<'_>)> Visit for Visitor<F> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        (self.0)(field.name(), Value::Debug(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        (self.0)(field.name(), Value::F64(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        (self.0)(field.name(), Value::I64(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        (self.0)(field.name(), Value::U64(value));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        (self.0)(field.name(), Value::I128(value));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        (self.0)(field.name(), Value::U128(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        (self.0)(field.name(), Value::Bool(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        (self.0)(field.name(), Value::Str(value));
    }

    fn record_bytes(&mut self, field: &Field, value: &[u8]) {
        (self.0)(field.name(), Value::Bytes(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        (self.0)(field.name(), Value::Error(value));
    }
}
