//! A panic is one log line, written before anything else can go wrong.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::panic::{self, PanicHookInfo};
use std::sync::Once;
use std::thread;

use tracing::Level;

use crate::log::{self, Value};
use crate::{correlation, metrics};

/// Installs the panic hook of this process, in place of the one before. Later calls do nothing.
///
/// The hook writes one line to stderr, in the configured format, before the stack unwinds: the message, and as fields
/// the location, the thread, the ids of the [`correlation`], and the backtrace if `RUST_BACKTRACE`
/// asks for one. It takes no lock of the log or of `eprintln!`, so a panic in either is still reported. It does not
/// count: who catches a panic knows what it cost, and calls [`count`].
pub fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // A count that only appears with the first panic hides it from whoever looks for an increase.
        for where_ in CATCHERS {
            metrics::panics(where_);
        }
        // A descriptor of our own, taken now: there may be none left to take when it is needed.
        let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
        panic::set_hook(Box::new(move |info| {
            let line = line(info);
            // There is nobody left to tell if this fails.
            let _ = match &stderr {
                Ok(stderr) => (&*stderr).write_all(&line),
                Err(_) => io::stderr().write_all(&line),
            };
        }));
    });
}

/// Where the kit catches panics.
const CATCHERS: [&str; 4] = ["daemon", "handler", "message", "response_body"];

/// Counts a panic that was caught, in `panics_total{where}`. `where_` is one of few constant names, for example
/// `handler`; never a path or an id.
pub fn count(where_: &str) {
    metrics::panics(where_).inc();
}

/// What a panic said, as far as it is text.
pub fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("(a value that is not text)")
}

fn line(info: &PanicHookInfo<'_>) -> Vec<u8> {
    let mut line = Vec::with_capacity(512);
    log::style_of_stderr().write(
        &mut line,
        Level::ERROR,
        "panic",
        |text| text.push(info.payload_as_str().unwrap_or("(a value that is not text)")),
        |ids| correlation::read(|now| ids.put_correlation(now)).unwrap_or_default(),
        |fields| {
            if let Some(location) = info.location() {
                fields.put("location", Value::Display(location));
            }
            fields.put("thread", thread::current().name().unwrap_or("(unnamed)"));
            let backtrace = Backtrace::capture();
            if backtrace.status() == BacktraceStatus::Captured {
                fields.put("backtrace", Value::Display(&backtrace));
            }
        },
    );
    line
}
