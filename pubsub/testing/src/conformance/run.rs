//! Runs cases.

use std::any::Any;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{StreamExt, stream};
use mainspring_pubsub::driver::Capabilities;
use mainspring_pubsub::{Error, ErrorKind};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::backend::{Backend, Need};
use super::case::{Case, Fault, cases};
use super::report::{CaseReport, Outcome, Report};
use super::stage::Stage;

/// Which cases to run, and how.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// The cases to run; none means all.
    pub only: Vec<&'static Case>,
    /// How thorough to be.
    pub scale: Scale,
    /// How many cases run at once; unless it is set, as many as the [backend says](Backend::at_once). One at a time runs what
    /// restarts the broker, and everything on a broker whose one topic all cases [share](Backend::shares_topic).
    pub at_once: Option<NonZeroUsize>,
}

/// How thorough a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// Hundreds of messages: fit for every build.
    #[default]
    Short,
    /// As many as the suites of others use, and more.
    Full,
}

impl Options {
    /// Runs only these cases.
    pub fn only(mut self, cases: impl IntoIterator<Item = &'static Case>) -> Self {
        self.only = cases.into_iter().collect();
        self
    }

    /// Sets how thorough to be.
    pub fn scale(mut self, scale: Scale) -> Self {
        self.scale = scale;
        self
    }

    /// Sets how many cases run at once.
    pub fn at_once(mut self, cases: NonZeroUsize) -> Self {
        self.at_once = Some(cases);
        self
    }

    /// The cases to run, in the suite's order.
    pub fn cases(&self) -> Vec<&'static Case> {
        let wanted = |case: &&'static Case| self.only.is_empty() || self.only.iter().any(|only| only.name == case.name);
        cases().filter(wanted).collect()
    }
}

/// Runs the suite against a broker, several cases at once, and tells `watch` of each as it ends.
///
/// Fails when the broker cannot be reached at all. Each case has a deadline; one that is over it, or panics, has
/// failed, and the others go on. Needs a runtime with time enabled. Dropping the future stops the cases that run.
pub async fn run(
    backend: Arc<dyn Backend>,
    options: &Options,
    mut watch: impl FnMut(&CaseReport),
) -> Result<Report, Error> {
    // Twice as long as a close may take: a driver that hangs here would hang every case.
    let asked = timeout(backend.patience() * 2, capabilities(&*backend)).await;
    let can = asked.unwrap_or_else(|_| {
        let what = "the broker could not be opened and closed in time";
        Err(Error::new(ErrorKind::Timeout, "verify", what))
    })?;
    let at_once = if backend.shares_topic() { 1 } else { options.at_once.unwrap_or_else(|| backend.at_once()).get() };
    let mut cases: Vec<_> = options.cases().into_iter().enumerate().collect();
    // What waits the longest, for a killed process to be missed, begins first.
    cases.sort_by_key(|(_, case)| !case.needs.contains(&Need::Process));
    let mut ended = Vec::with_capacity(cases.len());
    // What breaks every connection runs by itself.
    for group in cases.chunk_by(|(_, one), (_, next)| !restarts(one) && !restarts(next)) {
        let running = group.iter().map(|(place, case)| {
            let examined = examine(case, &backend, &can, options.scale);
            async move { (*place, examined.await) }
        });
        let mut running = stream::iter(running).buffer_unordered(at_once);
        while let Some((place, case)) = running.next().await {
            watch(&case);
            ended.push((place, case));
        }
    }
    ended.sort_by_key(|(place, _)| *place);
    Ok(Report { cases: ended.into_iter().map(|(_, case)| case).collect() })
}

fn restarts(case: &Case) -> bool {
    case.needs.contains(&Need::Restart)
}

async fn examine(case: &'static Case, backend: &Arc<dyn Backend>, can: &Capabilities, scale: Scale) -> CaseReport {
    let started = Instant::now();
    let outcome = match case.needs.iter().find_map(|need| need.lack(&**backend, can)) {
        Some(lack) => Outcome::Skipped(lack),
        None => perform(case, Stage { backend: Arc::clone(backend), can: can.clone(), case: case.name, scale }).await,
    };
    CaseReport { name: case.name, outcome, took: started.elapsed() }
}

/// What the broker says it can do: settling is the subscriber's affair, limits are the publisher's.
async fn capabilities(backend: &dyn Backend) -> Result<Capabilities, Error> {
    let (brokers, topic) = (backend.connect().await?, backend.topic("capabilities").await?);
    let publisher = brokers.publisher(&topic).await?;
    let group = format!("capabilities-{:08x}", fastrand::u32(..));
    let mut subscriber = brokers.subscriber(&backend.group(&topic, &group)).await?;
    let mut can = subscriber.capabilities();
    can.limits = publisher.capabilities().limits.clone();
    subscriber.close(tokio::time::Instant::now() + backend.patience()).await?;
    Ok(can)
}

async fn perform(case: &'static Case, stage: Stage) -> Outcome {
    let deadline = case.deadline(stage.patience());
    // In a task of its own, so that a panic ends the case and not the run; dropped with this future.
    let mut task = JoinSet::new();
    task.spawn((case.run)(stage));
    match timeout(deadline, task.join_next()).await {
        Err(_) => {
            task.shutdown().await;
            Outcome::Failed(format!("not done after {deadline:?}"))
        }
        Ok(Some(Ok(Ok(())))) => Outcome::Passed,
        Ok(Some(Ok(Err(Fault(why))))) => Outcome::Failed(why),
        Ok(Some(Err(error))) if error.is_panic() => {
            Outcome::Failed(format!("panicked: {}", said(&*error.into_panic())))
        }
        Ok(_) => Outcome::Failed("was cut off".to_owned()),
    }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}
