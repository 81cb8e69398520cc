//! The log put together: filter, formatter, queues.

use std::env;
use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Subscriber};
use tracing_log::AsLog;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::Error;
use super::access::LineWriter;
use super::config::{Access, Config, Format, Output};
use super::filter::{Filter, FilterError};
use super::layer::LogLayer;
use super::limit::Limiter;
use super::line::{Look, Style};
use super::queue::{CAPACITY, Dropped, Queue};
use super::redact::Redaction;
use super::sink::Sink;
use super::value::Value;
use crate::{Identity, metrics};

/// Everything behind a [`Handle`](super::Handle).
#[derive(Debug)]
pub(super) struct Pipeline {
    style: Arc<Style>,
    events: Channel,
    /// The access log's own output; `None` if it has none or shares that of events.
    own_access: Option<Channel>,
    access: Option<LineWriter>,
    /// Its text, changed under the lock together with what is in force.
    filter: Mutex<String>,
    reload: reload::Handle<EnvFilter, Registry>,
}

/// A queue, and what it writes to.
#[derive(Debug)]
struct Channel {
    output: Output,
    queue: Arc<Queue>,
}

impl Pipeline {
    /// Opens the outputs and starts their threads. The subscriber is not installed yet.
    pub(super) fn build(
        config: &Config,
        identity: &Identity,
    ) -> Result<(impl Subscriber + Send + Sync + use<>, Self), Error> {
        let Filter { text, meaning } = Filter::parse(&config.filter)?;
        let style = Arc::new(Style::new(look(config.format, &config.output), Some(identity)));
        let events = Channel::open("log.output", &config.output, &style)?;
        let json = Arc::new(style.with_look(Look::Json));
        // Two threads that write to one pipe could break up each other's lines: one output, one queue.
        let own_access = match &config.access {
            Access::To(output) if *output != config.output => Some(Channel::open("log.access", output, &json)?),
            _ => None,
        };
        let access = (config.access != Access::Off).then(|| {
            let queue = &own_access.as_ref().unwrap_or(&events).queue;
            LineWriter::new(Arc::clone(queue), json)
        });
        // The filter stands above everything as one layer: a filter of one layer cannot be reloaded safely.
        let (filter, reload) = reload::Layer::new(meaning);
        let limiter = Limiter::new(config.limit, metrics::log_dropped("repeated"));
        let redaction = Redaction::new(&config.redact);
        let layer = LogLayer::new(Arc::clone(&style), Arc::clone(&events.queue), redaction, limiter);
        let subscriber = tracing_subscriber::registry().with(filter).with(layer);
        Ok((subscriber, Self { style, events, own_access, access, filter: Mutex::new(text), reload }))
    }

    pub(super) fn access(&self) -> Option<&LineWriter> {
        self.access.as_ref()
    }

    pub(super) fn filter(&self) -> String {
        self.lock_filter().clone()
    }

    pub(super) fn set_filter(&self, filter: &str) -> Result<(), FilterError> {
        let Filter { text, meaning } = Filter::parse(filter)?;
        let mut current = self.lock_filter();
        // This fails only where the subscriber is gone, and then there is nothing to filter.
        if self.reload.reload(meaning).is_ok() {
            *current = text;
        }
        Ok(())
    }

    pub(super) fn reopen(&self) -> io::Result<()> {
        let channels = [Some(&self.events), self.own_access.as_ref()].into_iter().flatten();
        let results: Vec<_> = channels.map(|channel| self.reopen_one(channel)).collect();
        results.into_iter().collect()
    }

    /// Waits for all queues.
    pub(super) fn flush(&self, deadline: Instant) -> bool {
        let events = self.events.queue.flush(deadline);
        self.own_access.as_ref().is_none_or(|channel| channel.queue.flush(deadline)) && events
    }

    /// Waits for the events that `log` logs; whether none was lost meanwhile.
    pub(super) async fn written(&self, log: impl FnOnce()) -> bool {
        self.events.queue.written(log).await
    }

    pub(super) fn style_of_stderr(&self) -> Style {
        match self.style.look() {
            Look::Json => self.style.with_look(Look::Json),
            Look::Pretty { .. } => self.style.with_look(look(Format::Pretty, &Output::Stderr)),
        }
    }

    fn reopen_one(&self, channel: &Channel) -> io::Result<()> {
        let Output::File(path) = &channel.output else { return Ok(()) };
        let error = match Sink::open(&channel.output) {
            Ok(sink) => {
                channel.queue.replace(sink);
                return Ok(());
            }
            Err(error) => error,
        };
        channel.queue.replace(Sink::open(&Output::Stderr)?);
        let mut line = Vec::new();
        let path = path.display();
        let fields = [("path", Value::Display(&path)), ("error", Value::Display(&error))];
        let message = "the log file cannot be opened again; its lines go to stderr";
        self.style.notice(&mut line, Level::ERROR, "mainspring::log", message, &fields);
        self.events.queue.push(&line);
        Err(io::Error::new(error.kind(), format!("log file {path} cannot be opened again: {error}")))
    }

    fn lock_filter(&self) -> MutexGuard<'_, String> {
        self.filter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Channel {
    fn open(key: &'static str, output: &Output, style: &Arc<Style>) -> Result<Self, Error> {
        let sink = Sink::open(output).map_err(|source| Error::Open { key, output: output.to_string(), source })?;
        let queue = Queue::start(sink, Arc::clone(style), CAPACITY, Dropped::process_wide()).map_err(Error::Thread)?;
        Ok(Self { output: output.clone(), queue: Arc::new(queue) })
    }
}

/// How lines look on `output`.
pub(super) fn look(format: Format, output: &Output) -> Look {
    let terminal = match output {
        Output::Stdout => io::stdout().is_terminal(),
        Output::Stderr => io::stderr().is_terminal(),
        Output::File(_) => false,
    };
    match format {
        Format::Json => Look::Json,
        Format::Auto if !terminal => Look::Json,
        // https://no-color.org: set and not empty.
        Format::Auto | Format::Pretty => {
            Look::Pretty { color: terminal && env::var_os("NO_COLOR").is_none_or(|no| no.is_empty()) }
        }
    }
}

/// Lets the `log` crate's macros return early where the filter drops their events anyway.
pub(super) fn follow_with_log_crate() {
    tracing_log::log::set_max_level(LevelFilter::current().as_log());
}

#[cfg(test)]
mod tests;
