//! A consumer that is a process of its own, to be killed.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use mainspring_pubsub::{Failure, Message, Router};
use tokio::io::AsyncReadExt;

use super::backend::Backend;
use crate::history::Tag;
use crate::running::Running;

/// The variable that tells a process that it is a child of the suite; its value is the URL to consume.
pub const CHILD: &str = "CONFORMANCE_CHILD";

/// How many messages a child handles at once, and how many more it may hold.
pub(super) const IN_FLIGHT: usize = 32;

/// How long a child's handler works on a message.
const WORK: Duration = Duration::from_millis(2);

/// Consumes `url` with a router until standard input ends, then stops in order.
///
/// It says on standard output what it does, one line each: `ready`, then `start <producer> <seq>` and `done <producer>
/// <seq>` for each message. Lines are flushed before the handler goes on, so that what was said has happened.
pub async fn child(backend: &dyn Backend, url: &str) -> ExitCode {
    let opened = async { backend.connect().await?.subscriber(url).await };
    let subscriber = match opened.await {
        Ok(subscriber) => subscriber,
        Err(error) => {
            say(&format!("failed {error}"));
            return ExitCode::FAILURE;
        }
    };
    let router = Router::new().route("child", subscriber, handle).concurrency(IN_FLIGHT / 2);
    let mut running = Running::start(router);
    say("ready");
    let mut stdin = tokio::io::stdin();
    let mut rest = [0; 64];
    let closed = async { while matches!(stdin.read(&mut rest).await, Ok(count) if count > 0) {} };
    let ended = tokio::select! {
        () = closed => {
            running.request_stop(Duration::from_secs(20));
            running.ended(Duration::from_secs(25)).await
        }
        ended = running.ended(Duration::from_secs(3600)) => ended,
    };
    match ended {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) => {
            say(&format!("failed {error}"));
            ExitCode::FAILURE
        }
        None => ExitCode::FAILURE,
    }
}

async fn handle(message: Message) -> Result<(), Failure> {
    let Some(tag) = Tag::of(&message) else { return Ok(()) };
    say(&format!("start {} {}", tag.producer, tag.seq));
    tokio::time::sleep(WORK).await;
    say(&format!("done {} {}", tag.producer, tag.seq));
    Ok(())
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // A parent that is gone has no use for it.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
