//! `mainspring publish`.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mainspring::daemon::Chain;
use mainspring::pubsub::{Error, ErrorKind, Message, Publisher};
use serde_json::Value;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use crate::args::PublishArgs;
use crate::exit::{self, Exit, complain};
use crate::lines::{self, Line};
use crate::settings::Settings;
use crate::stop::Stop;

/// Messages that are published together.
const BATCH: usize = 500;

/// Failures that are told one by one.
const TOLD: u64 = 10;

/// The longest line where the broker has no limit.
const LONGEST: usize = 64 << 20;

/// How long the input may take to be counted, when there is nothing else to do with it.
const INPUT: Duration = Duration::from_secs(2);

/// How long a flush may take at the end.
const FLUSH: Duration = Duration::from_secs(30);

/// Publishes every line, and answers how it went.
pub(crate) async fn run(settings: &Settings, args: PublishArgs, mut stop: Stop) -> Result<ExitCode, Exit> {
    let sources = lines::open(&args.files)?;
    let brokers = settings.brokers()?;
    let opened = tokio::select! {
        biased;
        () = &mut stop => return Ok(exit::interrupted()),
        opened = brokers.publisher(&args.url) => opened,
    };
    let publisher = match opened {
        Ok(publisher) => publisher,
        Err(error) if error.kind() == ErrorKind::Config => return Err(error.into()),
        Err(error) => return Ok(fail_all(lines::read(sources, LONGEST), error).await),
    };
    exit::warn_of_memory(publisher.capabilities().volatile);
    let limit = publisher.capabilities().limits.message_bytes.unwrap_or(LONGEST);
    let mut lines = lines::read(sources, limit);
    let mut progress = Progress::new();
    let mut batch = Vec::with_capacity(BATCH);
    let mut interrupted = false;
    loop {
        let read = tokio::select! {
            biased;
            () = &mut stop => {
                interrupted = true;
                break;
            }
            read = lines.recv_many(&mut batch, BATCH) => read,
        };
        if read == 0 {
            break;
        }
        // What has been read is published also when the stop comes now: its outcome is known by the deadline.
        send(&publisher, &args, batch.drain(..), &mut progress).await;
        if progress.is_hopeless() {
            break;
        }
    }
    lines.close();
    let deadline = tokio::time::Instant::now() + FLUSH;
    if let Ok(Err(error)) = timeout(FLUSH, publisher.flush(deadline)).await {
        complain(&Chain(&error).to_string());
    }
    progress.finish();
    summarise(progress.published, progress.failed);
    if interrupted {
        complain("interrupted; the rest of the input was not published");
        return Ok(exit::interrupted());
    }
    if let Some(why) = progress.hopeless {
        complain(&format!("giving up, nothing could be published: {why}"));
    }
    Ok(if progress.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The broker cannot be had, so that every line there is has failed.
async fn fail_all(mut lines: Receiver<Line>, error: Error) -> ExitCode {
    let exit = Exit::from(error);
    complain(&exit.message);
    let mut failed = 0;
    let count = async {
        while lines.recv().await.is_some() {
            failed += 1;
        }
    };
    // A terminal, say, goes on for ever.
    let _ = timeout(INPUT, count).await;
    summarise(0, failed);
    if failed == 0 { ExitCode::from(exit.code) } else { ExitCode::FAILURE }
}

fn summarise(published: u64, failed: u64) {
    let _ = writeln!(std::io::stdout(), "{published} published, {failed} failed");
}

async fn send(publisher: &Publisher, args: &PublishArgs, lines: impl Iterator<Item = Line>, progress: &mut Progress) {
    let (mut places, mut messages) = (Vec::new(), Vec::new());
    for Line { source, number, bytes } in lines {
        let place = format!("{source}:{number}");
        match bytes.map_err(|fault| fault.to_string()).and_then(|bytes| message(args, bytes)) {
            Ok(message) => {
                places.push(place);
                messages.push(message);
            }
            Err(why) => progress.failed(&place, &why),
        }
    }
    let mut unreachable = None;
    for (place, result) in places.iter().zip(publisher.publish_all(messages).await) {
        match result {
            Ok(_) => progress.published(),
            Err(error) => {
                let why = Chain(&error).to_string();
                progress.failed(place, &why);
                if is_unreachable(error.kind()) {
                    unreachable = Some(why);
                }
            }
        }
    }
    if progress.published == 0 {
        progress.hopeless = unreachable;
    }
}

/// The message of a line.
fn message(args: &PublishArgs, bytes: Vec<u8>) -> Result<Message, String> {
    let key = match (&args.key, &args.key_field) {
        (Some(key), _) => Some(key.clone()),
        (None, Some(field)) => Some(key_of(&bytes, field)?),
        (None, None) => None,
    };
    let mut message = Message::new(bytes);
    message.key = key;
    for (name, value) in &args.headers {
        message = message.with_attribute(name, value);
    }
    Ok(message)
}

fn key_of(line: &[u8], field: &str) -> Result<String, String> {
    let json: Value = serde_json::from_slice(line).map_err(|error| format!("the line is not JSON: {error}"))?;
    let value = field.split('.').try_fold(&json, |value, name| value.get(name));
    match value {
        Some(Value::String(key)) => Ok(key.clone()),
        Some(Value::Number(key)) => Ok(key.to_string()),
        Some(Value::Null) | None => Err(format!("the line has no field `{field}` to take the key from")),
        Some(_) => Err(format!("the field `{field}` is neither text nor a number, so it is no key")),
    }
}

fn is_unreachable(kind: ErrorKind) -> bool {
    use ErrorKind::{NotFound, PermissionDenied, Timeout, Unavailable};
    matches!(kind, NotFound | PermissionDenied | Timeout | Unavailable)
}

/// What has been done so far, shown on a terminal.
#[derive(Debug)]
struct Progress {
    published: u64,
    failed: u64,
    /// Why nothing at all could be published.
    hopeless: Option<String>,
    terminal: bool,
    shown: Option<Instant>,
}

impl Progress {
    fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { published: 0, failed: 0, hopeless: None, terminal, shown: None }
    }

    fn published(&mut self) {
        self.published += 1;
        self.show();
    }

    fn failed(&mut self, place: &str, why: &str) {
        self.failed += 1;
        self.clear();
        match self.failed {
            ..=TOLD => complain(&format!("{place}: {why}")),
            failed if failed == TOLD + 1 => complain("further failures are only counted"),
            _ => {}
        }
        self.show();
    }

    fn is_hopeless(&self) -> bool {
        self.hopeless.is_some()
    }

    fn show(&mut self) {
        const EVERY: Duration = Duration::from_millis(200);
        if self.terminal && self.shown.is_none_or(|shown| shown.elapsed() >= EVERY) {
            self.shown = Some(Instant::now());
            let _ = write!(std::io::stderr(), "\r{} published, {} failed\u{1b}[K", self.published, self.failed);
        }
    }

    fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(std::io::stderr(), "\r\u{1b}[K");
        }
    }

    fn finish(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_fields() {
        assert_eq!(key_of(br#"{"id": "A1"}"#, "id").unwrap(), "A1");
        assert_eq!(key_of(br#"{"order": {"id": 42}}"#, "order.id").unwrap(), "42");
        for (line, said) in [
            (&b"tea"[..], "not JSON"),
            (br#"{"name": 1}"#, "no field `id`"),
            (br#"{"id": null}"#, "no field `id`"),
            (br#"{"id": [1]}"#, "neither text nor a number"),
            (b"\xff", "not JSON"),
        ] {
            let why = key_of(line, "id").unwrap_err();
            assert!(why.contains(said), "{why}");
        }
    }
}
