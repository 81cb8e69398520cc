//! All daemons of a process: who has not ended, and when a critical one is dead.

mod daemon;
mod policy;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mainspring_daemon::{Board, Context, Shutdown, Trigger};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::metrics::{ComponentLabels, ServerMetrics};
use crate::tasks::Tasks;
use daemon::{begin, supervise};

pub(crate) use daemon::{Daemon, Failure, Start};
pub use policy::Policy;

/// All daemons of a process. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Supervisor {
    tasks: JoinSet<Ended>,
    roll: Roll,
    list: Tasks,
    trigger: Trigger,
    shutdown: Shutdown,
    board: Arc<Board>,
    metrics: Arc<ServerMetrics>,
}

/// The names of the daemons that have not ended, for a report when nobody can be asked any more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roll(Arc<Mutex<Vec<&'static str>>>);

/// How a daemon ended for good.
#[derive(Debug)]
struct Ended {
    name: &'static str,
    critical: bool,
    failure: Option<Failure>,
}

/// A critical daemon that failed for good.
#[derive(Debug)]
pub(crate) struct Death {
    pub(crate) name: &'static str,
    pub(crate) failure: Failure,
}

impl Supervisor {
    /// Makes a supervisor with no daemons yet.
    pub(crate) fn new(board: Arc<Board>, metrics: Arc<ServerMetrics>) -> Self {
        let (trigger, shutdown) = Shutdown::channel();
        Self { tasks: JoinSet::new(), roll: Roll::default(), list: Tasks::default(), trigger, shutdown, board, metrics }
    }

    /// What daemons, and event streams, listen to.
    pub(crate) fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Who has not ended.
    pub(crate) fn roll(&self) -> &Roll {
        &self.roll
    }

    /// The kit's own tasks, of which daemons are a part.
    pub(crate) fn list(&self) -> &Tasks {
        &self.list
    }

    /// Starts a daemon. Its function has been called when this returns, its future has not been polled.
    pub(crate) fn start(&mut self, daemon: Daemon) {
        let cx = Context::new(daemon.name, self.shutdown.clone(), Arc::clone(&self.board));
        let first = match daemon.start {
            Start::Once(start) => (begin(|| start(cx.clone())), None),
            Start::Again(start) => (begin(|| start(cx.clone())), Some(start)),
        };
        let labels = ComponentLabels { name: daemon.name.to_owned() };
        let up = self.metrics.components.get_or_create_owned(&labels);
        let (name, policy, roll) = (daemon.name, daemon.policy, self.roll.clone());
        roll.enter(name);
        let run = self.list.track(format!("daemon {name}"), async move {
            let failure = supervise(name, policy, first.0, first.1, cx, &up).await;
            roll.leave(name);
            Ended { name, critical: policy.critical, failure }
        });
        self.tasks.spawn(run);
    }

    /// Waits for the death of a critical daemon. Cancel-safe.
    pub(crate) async fn death(&mut self) -> Death {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(Ended { name, critical: true, failure: Some(failure) })) => return Death { name, failure },
                Some(_) => {}
                None => return std::future::pending().await,
            }
        }
    }

    /// Asks all daemons to stop and to finish by `deadline`.
    pub(crate) fn stop(&self, deadline: Instant) {
        self.trigger.request(deadline);
    }

    /// Tells all daemons that the last request has been answered.
    pub(crate) fn requests_finished(&self) {
        self.trigger.requests_finished();
    }

    /// Waits until all have ended. Cancel-safe.
    pub(crate) async fn ended(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }

    /// Drops those that are left. The roll goes on naming them.
    pub(crate) async fn abort(&mut self) {
        self.tasks.abort_all();
        // A task that never yields cannot be dropped; it must not keep the process either.
        let _ = tokio::time::timeout(Duration::from_millis(50), self.ended()).await;
    }
}

impl Roll {
    /// Those that have not ended by themselves, in the order of their start.
    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().iter().map(|name| (*name).to_owned()).collect()
    }

    fn enter(&self, name: &'static str) {
        self.lock().push(name);
    }

    fn leave(&self, name: &'static str) {
        let mut names = self.lock();
        if let Some(at) = names.iter().position(|known| *known == name) {
            names.remove(at);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<&'static str>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use mainspring_config as config;
    use mainspring_daemon::BoxError;

    use super::*;
    use crate::error::{EX_CONFIG, EX_SOFTWARE};

    fn supervisor() -> Supervisor {
        Supervisor::new(Arc::default(), Arc::new(ServerMetrics::new()))
    }

    fn again<Fut>(run: impl Fn(Context) -> Fut + Send + Sync + 'static) -> Start
    where
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        Start::Again(Box::new(move |cx| Box::pin(run(cx))))
    }

    #[tokio::test(start_paused = true)]
    async fn a_critical_daemon_that_panics_is_dead() {
        let mut supervisor = supervisor();
        let start = Start::Once(Box::new(|_| Box::pin(async { panic!("the sky fell") })));
        supervisor.start(Daemon { name: "ship", policy: Policy::once().critical(), start });
        let death = supervisor.death().await;
        assert_eq!((death.name, &*death.failure.why), ("ship", "panicked: the sky fell"));
        assert_eq!(death.failure.code, EX_SOFTWARE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_function_that_panics_before_its_future_exists_is_a_failure_too() {
        let mut supervisor = supervisor();
        let start = Start::Once(Box::new(|_| panic!("early")));
        supervisor.start(Daemon { name: "ship", policy: Policy::once().critical(), start });
        assert_eq!(supervisor.death().await.failure.why, "panicked: early");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_may_be_restarted_is_with_growing_pauses() {
        let mut supervisor = supervisor();
        let runs = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&runs);
        let (done, finished) = tokio::sync::oneshot::channel();
        let done = std::sync::Mutex::new(Some(done));
        let start = again(move |_| {
            let run = counted.fetch_add(1, Ordering::Relaxed);
            let done = (run == 6).then(|| done.lock().unwrap().take()).flatten();
            async move {
                match (run, done) {
                    (6, Some(done)) => done.send(Instant::now()).map_err(|_| "nobody waits".into()),
                    (run, _) if run % 2 == 0 => Err("no broker".into()),
                    _ => panic!("worse"),
                }
            }
        });
        let began = Instant::now();
        supervisor.start(Daemon { name: "poll", policy: Policy::restarting(), start });
        let took = finished.await.unwrap() - began;
        // 0.2 + 0.4 + ... + 6.4 s, and jitter of at most as much again.
        assert!(took >= Duration::from_millis(12_600) && took <= Duration::from_millis(25_200), "{took:?}");
        assert_eq!(runs.load(Ordering::Relaxed), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_waits_for_its_restart_is_not_up() {
        let mut supervisor = supervisor();
        let policy = Policy::restarting().backoff(Duration::from_secs(60), Duration::from_secs(60));
        supervisor.start(Daemon { name: "poll", policy, start: again(|_| async { Err("no broker".into()) }) });
        let up = supervisor.metrics.components.get_or_create_owned(&ComponentLabels { name: "poll".to_owned() });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(up.get(), 0);
        assert_eq!(supervisor.roll().names(), ["poll"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_critical_one_that_fails_too_often_is_dead() {
        let mut supervisor = supervisor();
        let start = again(|_| async { Err("no broker".into()) });
        supervisor.start(Daemon { name: "poll", policy: Policy::restarting().critical(), start });
        assert_eq!(supervisor.death().await.failure.why, "no broker");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_cannot_work_as_configured_is_dead_at_once_and_says_why() {
        let mut supervisor = supervisor();
        let start = again(|_| async {
            let fault = config::Error::one("timeout", "code", "is longer than the lease", "make it shorter");
            Err(BoxError::from(fault))
        });
        let began = Instant::now();
        supervisor.start(Daemon { name: "ship", policy: Policy::restarting().critical(), start });
        let death = supervisor.death().await;
        assert_eq!(death.failure.code, EX_CONFIG);
        assert!(death.failure.why.contains("longer than the lease; make it shorter"), "{:?}", death.failure);
        assert_eq!(Instant::now(), began, "it was not tried again");
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_do_not_end_are_dropped_and_named() {
        let mut supervisor = supervisor();
        for name in ["stuck", "polite"] {
            let start = Start::Once(Box::new(move |cx| {
                Box::pin(async move {
                    cx.shutdown().requested().await;
                    if name == "stuck" {
                        std::future::pending::<()>().await;
                    }
                    Ok(())
                })
            }));
            supervisor.start(Daemon { name, policy: Policy::once(), start });
        }
        supervisor.stop(Instant::now() + Duration::from_secs(5));
        assert!(tokio::time::timeout(Duration::from_secs(5), supervisor.ended()).await.is_err());
        supervisor.abort().await;
        assert_eq!(supervisor.roll().names(), ["stuck"]);
    }
}
