//! The kit's own tasks, for whoever asks what the process is doing.
//!
//! tokio can list all tasks only with an unstable flag, and by polling them. This list costs each task two looks at
//! the clock a poll, which is why only those are in it that live as long as the process: daemons and housekeeping.

use std::fmt;
use std::panic::Location;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;

/// The list. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks(Arc<Mutex<Vec<Arc<Entry>>>>);

#[derive(Debug)]
struct Entry {
    name: String,
    location: &'static Location<'static>,
    began: Instant,
    polls: AtomicU64,
    /// Microseconds after `began`.
    busy: AtomicU64,
    last_poll: AtomicU64,
    /// When the poll began that is not over yet; [`IDLE`] between polls.
    polled_since: AtomicU64,
}

const IDLE: u64 = u64::MAX;

pin_project! {
    /// A future that is in the list until it is dropped.
    pub(crate) struct Tracked<F> {
        #[pin]
        future: F,
        listed: Listed,
    }
}

/// Takes its task off the list when dropped.
struct Listed {
    entry: Arc<Entry>,
    tasks: Tasks,
}

impl Tasks {
    /// Puts `future` on the list.
    #[track_caller]
    pub(crate) fn track<F: Future>(&self, name: impl Into<String>, future: F) -> Tracked<F> {
        let entry = Arc::new(Entry {
            name: name.into(),
            location: Location::caller(),
            began: Instant::now(),
            polls: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            last_poll: AtomicU64::new(0),
            polled_since: AtomicU64::new(IDLE),
        });
        self.lock().push(Arc::clone(&entry));
        Tracked { future, listed: Listed { entry, tasks: self.clone() } }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Entry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Future> Future for Tracked<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let entry = &this.listed.entry;
        let before = entry.now();
        entry.polls.fetch_add(1, Ordering::Relaxed);
        entry.last_poll.store(before, Ordering::Relaxed);
        entry.polled_since.store(before, Ordering::Relaxed);
        let polled = this.future.poll(cx);
        entry.polled_since.store(IDLE, Ordering::Relaxed);
        entry.busy.fetch_add(entry.now() - before, Ordering::Relaxed);
        polled
    }
}

impl Entry {
    fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.tasks.lock().retain(|entry| !Arc::ptr_eq(entry, &self.entry));
    }
}

/// One task a line.
impl fmt::Display for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.lock().clone();
        writeln!(f, "{} tasks of the kit", entries.len())?;
        for entry in entries {
            let seconds = |micros: u64| Duration::from_micros(micros).as_secs_f64();
            let now = entry.now();
            write!(
                f,
                "{} ({}:{}): age {:.1} s, {} polls, {:.3} s busy, ",
                entry.name,
                entry.location.file(),
                entry.location.line(),
                seconds(now),
                entry.polls.load(Ordering::Relaxed),
                seconds(entry.busy.load(Ordering::Relaxed)),
            )?;
            match entry.polled_since.load(Ordering::Relaxed) {
                IDLE => {
                    let ago = now.saturating_sub(entry.last_poll.load(Ordering::Relaxed));
                    writeln!(f, "last polled {:.1} s ago", seconds(ago))?;
                }
                since => writeln!(f, "running now for {:.1} s", seconds(now.saturating_sub(since)))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    #[test]
    fn a_task_is_listed_with_its_polls_until_it_is_dropped() {
        let tasks = Tasks::default();
        let list = tasks.clone();
        let mut task = Box::pin(tasks.track(
            "daemon ship",
            std::future::poll_fn(move |_| {
                assert!(list.to_string().contains("running now for 0.0 s"), "{list}");
                Poll::<()>::Pending
            }),
        ));
        assert!(tasks.to_string().contains("daemon ship (server/src/tasks.rs:"), "{tasks}");
        for _ in 0..2 {
            assert!(task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        let listed = tasks.to_string();
        assert!(listed.contains(", 2 polls, ") && listed.contains("last polled 0.0 s ago"), "{listed}");
        drop(task);
        assert_eq!(tasks.to_string(), "0 tasks of the kit\n");
    }
}
