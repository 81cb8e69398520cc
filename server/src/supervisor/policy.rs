//! What happens when a daemon fails.

use std::time::Duration;

use backon::BackoffBuilder;

/// What happens when a daemon fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub(super) restart: Option<Restart>,
    pub(super) critical: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Restart {
    first: Duration,
    pub(super) longest: Duration,
}

impl Policy {
    /// Restarted with growing pauses (200 ms to 30 s, with jitter) for as long as the process runs, unless it fails for
    /// a fault of the configuration, which does not pass by itself.
    pub fn restarting() -> Self {
        let restart = Restart { first: Duration::from_millis(200), longest: Duration::from_secs(30) };
        Self { restart: Some(restart), critical: false }
    }

    /// Never restarted. Without it the process goes on.
    pub fn once() -> Self {
        Self { restart: None, critical: false }
    }

    /// The process cannot do without it: it stops in order when the daemon fails, or when one that is restarted has
    /// failed five times in five minutes. The exit code is 70, or 78 when a [`config::Error`](mainspring_config::Error)
    /// is among the causes.
    pub fn critical(mut self) -> Self {
        self.critical = true;
        self
    }

    /// Sets the shortest and the longest pause before a restart. Without effect on a daemon that is not restarted.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        if self.restart.is_some() {
            self.restart = Some(Restart { first, longest });
        }
        self
    }
}

impl Restart {
    pub(super) fn pauses(self) -> impl Iterator<Item = Duration> + Send {
        backon::ExponentialBuilder::default()
            .with_min_delay(self.first)
            .with_max_delay(self.longest)
            .with_factor(2.0)
            .with_jitter()
            .without_max_times()
            .build()
            .map(move |pause| pause.min(self.longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_that_fail_together_do_not_come_back_together() {
        let Some(restart) = Policy::restarting().restart else { unreachable!("it is restarted") };
        let pauses = || restart.pauses().take(8).collect::<Vec<_>>();
        assert_ne!(pauses(), pauses());
    }
}
