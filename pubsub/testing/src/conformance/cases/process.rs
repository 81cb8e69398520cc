//! Consumers that are processes, and are killed.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::time::{Instant, sleep};

use crate::conformance::case::{Fault, ensure, table};
use crate::conformance::child::{CHILD, IN_FLIGHT};
use crate::conformance::stage::{Stage, Topic, within};
use crate::history::{Journal, Order, Producer, Rules, Settlement, Tag, What};

table! {
    a_killed_process_loses_nothing[Process] 20 "Consumers that are killed at random points lose nothing, and repeat no more than they held.";
    a_process_killed_at_rest_repeats_nothing[Process] 20 "What was acked some seconds before its consumer was killed does not come again.";
    a_stopped_process_repeats_nothing[Process] 20 "Consumers that are told to stop and are replaced lose nothing and repeat nothing.";
}

async fn a_killed_process_loses_nothing(stage: Stage) -> Result<(), Fault> {
    generations(&stage, true).await
}

async fn a_process_killed_at_rest_repeats_nothing(stage: Stage) -> Result<(), Fault> {
    let mut topic = stage.topic().await?;
    topic.patience *= 4;
    let journal = Journal::new();
    journal.joined("g", "child 0");
    let mut child = Consumer::start(&stage, &topic, &journal, 0).await?;
    let producer = Arc::new(topic.producer(&journal));
    publish(&topic, &producer, 200).await?;
    child.finish(200, topic.patience).await?;
    // The child has said that these are done; nothing but time can tell that the broker has heard of it.
    sleep(REST).await;
    child.kill(topic.patience).await?;
    let mut child = Consumer::start(&stage, &topic, &journal, 1).await?;
    publish(&topic, &producer, 200).await?;
    child.finish(200, topic.patience).await?;
    child.stop(topic.patience * 2).await?;
    let verdict = journal.check(&Rules::default().order(Order::None));
    ensure!(verdict.is_clean(), "{verdict}");
    Ok(())
}

async fn a_stopped_process_repeats_nothing(stage: Stage) -> Result<(), Fault> {
    generations(&stage, false).await
}

/// Has one process after the other consume the topic, each ended in the middle of its work.
async fn generations(stage: &Stage, kill: bool) -> Result<(), Fault> {
    let mut topic = stage.topic().await?;
    // A broker may take most of a minute to notice that a member is dead.
    topic.patience *= 4;
    let (count, ends) = (stage.size(2000, 100_000), stage.size(5, 30));
    let journal = Journal::new();
    journal.joined("g", "child 0");
    let mut child = Consumer::start(stage, &topic, &journal, 0).await?;
    let producer = Arc::new(topic.producer(&journal));
    publish(&topic, &producer, count).await?;
    let mut handled = 0;
    for n in 1..=ends {
        let until = handled + (count - handled) / (2 * (ends - n + 1)) + fastrand::usize(0..20);
        while handled < until.min(count) {
            handled += usize::from(child.next(topic.patience).await?.is_some_and(|done| done));
        }
        handled += if kill { child.kill(topic.patience).await? } else { child.stop(topic.patience * 2).await? };
        child = Consumer::start(stage, &topic, &journal, n).await?;
    }
    let rules = Rules::default().order(Order::None);
    // What a killed process had handled and not yet committed comes again.
    let rules = if kill { rules.duplicates(ends * (IN_FLIGHT + COMMIT_SLACK)) } else { rules };
    let lost = |journal: &Journal| journal.check(&rules).findings.iter().any(|f| f.kind == crate::history::Kind::Lost);
    let mut heard = Instant::now();
    while lost(&journal) {
        ensure!(heard.elapsed() < topic.patience, "{}", journal.check(&rules));
        // Checking is a walk through everything, so not after each message: when there were many, or no more come.
        for _ in 0..count / 10 {
            match child.next(topic.quiet).await {
                Ok(Some(_)) => heard = Instant::now(),
                Ok(None) => return Err(Fault::new("the child ended by itself")),
                Err(_) => break,
            }
        }
    }
    child.stop(topic.patience * 2).await?;
    let verdict = journal.check(&rules);
    ensure!(verdict.is_clean(), "{verdict}");
    Ok(())
}

/// Messages that a consumer may handle between two commits, beyond what it holds.
const COMMIT_SLACK: usize = 1000;
/// How soon what is acked has to be safe.
const REST: Duration = Duration::from_secs(3);

async fn publish(topic: &Topic, producer: &Producer, count: usize) -> Result<(), Fault> {
    let publisher = topic.publisher().await?;
    let mut left = count;
    while left > 0 {
        let part = left.min(500);
        let messages = (0..part).map(|n| topic.message(n.to_string()).with_key(format!("k{}", n % 100))).collect();
        for result in within(topic.patience, "publishing", producer.publish_all(&publisher, messages)).await? {
            result?;
        }
        left -= part;
    }
    Ok(())
}

/// A child, and what it said so far, written into the journal.
struct Consumer {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    journal: Journal,
    name: Arc<str>,
    /// Others may have published to the same topic.
    producer: String,
    deliveries: std::collections::HashMap<Tag, u64>,
}

impl Consumer {
    async fn start(stage: &Stage, topic: &Topic, journal: &Journal, number: usize) -> Result<Self, Fault> {
        let mut command = stage.backend.child().map_err(Fault::new)?;
        command.env(CHILD, topic.group("g")).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().map_err(|error| Fault::new(format!("cannot start a child: {error}")))?;
        let Some(stdout) = process.stdout.take() else { return Err(Fault::new("the child has no output")) };
        let lines = BufReader::new(stdout).lines();
        let (name, producer) = (format!("child {number}").into(), topic.name().to_owned());
        let mut child =
            Self { process, lines, journal: journal.clone(), name, producer, deliveries: Default::default() };
        let first = child.line(topic.patience).await?;
        ensure!(first.as_deref() == Some("ready"), "the child said {first:?} instead of `ready`");
        Ok(child)
    }

    /// Takes the next line; whether it says that a message is done. `None` when the child has ended.
    async fn next(&mut self, patience: Duration) -> Result<Option<bool>, Fault> {
        let Some(line) = self.line(patience).await? else { return Ok(None) };
        let mut words = line.split(' ');
        let (what, producer, seq) = (words.next(), words.next(), words.next().and_then(|seq| seq.parse().ok()));
        let (Some(producer), Some(seq)) = (producer, seq) else {
            return Err(Fault::new(format!("the child said `{line}`")));
        };
        if *producer != *self.producer {
            return Ok(Some(false));
        }
        let tag = Tag { producer: producer.into(), seq };
        match what {
            Some("start") => {
                let delivery = self.journal.delivered_elsewhere("g", &self.name, tag.clone());
                self.deliveries.insert(tag, delivery);
                Ok(Some(false))
            }
            Some("done") => {
                let Some(delivery) = self.deliveries.remove(&tag) else {
                    return Err(Fault::new(format!("the child finished {tag}, which it had not begun")));
                };
                self.journal.note(Some(tag.clone()), What::Ended { delivery, ok: true });
                self.journal.settled(Some(tag), delivery, Settlement::Ack);
                Ok(Some(true))
            }
            _ => Err(Fault::new(format!("the child said `{line}`"))),
        }
    }

    /// Waits until so many more messages are done.
    async fn finish(&mut self, count: usize, patience: Duration) -> Result<(), Fault> {
        let mut done = 0;
        while done < count {
            let Some(finished) = self.next(patience).await? else {
                return Err(Fault::new("the child ended by itself"));
            };
            done += usize::from(finished);
        }
        Ok(())
    }

    /// Kills the process, and answers how many messages it had still finished.
    async fn kill(mut self, patience: Duration) -> Result<usize, Fault> {
        self.process.start_kill().map_err(|error| Fault::new(format!("cannot kill the child: {error}")))?;
        self.rest(patience).await
    }

    /// Has the process stop in order, and answers how many messages it had still finished.
    async fn stop(mut self, patience: Duration) -> Result<usize, Fault> {
        drop(self.process.stdin.take());
        let status = async {
            let done = self.rest_of(patience).await?;
            let status = self.process.wait().await;
            Ok::<_, Fault>((done, status))
        };
        let (done, status) = within(patience, "stopping the child", status).await??;
        let status = status.map_err(|error| Fault::new(format!("cannot wait for the child: {error}")))?;
        ensure!(status.success(), "the child ended with {status}");
        ensure!(self.deliveries.is_empty(), "the child stopped with {} messages in hand", self.deliveries.len());
        Ok(done)
    }

    async fn rest(&mut self, patience: Duration) -> Result<usize, Fault> {
        let done = self.rest_of(patience).await?;
        let ended = within(patience, "the child's end", self.process.wait()).await?;
        ended.map_err(|error| Fault::new(format!("cannot wait for the child: {error}")))?;
        for (tag, delivery) in self.deliveries.drain() {
            self.journal.note(Some(tag), What::Revoked { delivery });
        }
        Ok(done)
    }

    async fn rest_of(&mut self, patience: Duration) -> Result<usize, Fault> {
        let mut done = 0;
        while let Some(finished) = self.next(patience).await? {
            done += usize::from(finished);
        }
        Ok(done)
    }

    async fn line(&mut self, patience: Duration) -> Result<Option<String>, Fault> {
        let line = within(patience, "the child's next word", self.lines.next_line()).await?;
        line.map_err(|error| Fault::new(format!("cannot read from the child: {error}")))
    }
}
