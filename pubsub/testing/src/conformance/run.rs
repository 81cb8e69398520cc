//! Runs cases.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use mainspring_pubsub::driver::Capabilities;
use mainspring_pubsub::{Error, ErrorKind};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::backend::Backend;
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

    /// The cases to run, in the suite's order.
    pub fn cases(&self) -> Vec<&'static Case> {
        let wanted = |case: &&'static Case| self.only.is_empty() || self.only.iter().any(|only| only.name == case.name);
        cases().filter(wanted).collect()
    }
}

/// Runs the suite against a broker, one case after the other, and tells `watch` of each as it ends.
///
/// Fails when the broker cannot be reached at all. Each case has a deadline; one that is over it, or panics, has
/// failed, and the others go on. Needs a runtime with time enabled. Dropping the future stops the case that runs.
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
    let mut report = Report::default();
    for case in options.cases() {
        let started = Instant::now();
        let outcome = match case.needs.iter().find_map(|need| need.lack(&*backend, &can)) {
            Some(lack) => Outcome::Skipped(lack),
            None => {
                let stage =
                    Stage { backend: Arc::clone(&backend), can: can.clone(), case: case.name, scale: options.scale };
                perform(case, stage).await
            }
        };
        let case = CaseReport { name: case.name, outcome, took: started.elapsed() };
        watch(&case);
        report.cases.push(case);
    }
    Ok(report)
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
