use super::*;
use crate::log::line::Look;
use crate::log::writer::TICK;
use std::io::Write;
use std::pin::pin;
use std::task::{Context, Wake};

/// An output that a test can hold up, and look into.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<Behind>, Condvar)>);

#[derive(Default)]
struct Behind {
    closed: bool,
    writers: usize,
    written: Vec<u8>,
}

impl Gate {
    fn closed() -> Self {
        let gate = Self::default();
        lock(&gate.0.0).closed = true;
        gate
    }

    fn open(&self) {
        lock(&self.0.0).closed = false;
        self.0.1.notify_all();
    }

    /// Waits for what a test needs to be so; fails after a time that only a fault can take.
    fn until(&self, fact: impl Fn(&Behind) -> bool) -> Vec<String> {
        let (behind, timeout) =
            self.0.1.wait_timeout_while(lock(&self.0.0), Duration::from_secs(20), |behind| !fact(behind)).unwrap();
        assert!(!timeout.timed_out(), "never so; written: {}", behind.written.escape_ascii());
        String::from_utf8(behind.written.clone()).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut behind = lock(&self.0.0);
        behind.writers += 1;
        self.0.1.notify_all();
        behind = self.0.1.wait_while(behind, |behind| behind.closed).unwrap();
        behind.writers -= 1;
        // Short writes are the rule on pipes.
        let some = bytes.len().min(5);
        behind.written.extend_from_slice(&bytes[..some]);
        self.0.1.notify_all();
        Ok(some)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn queue(gate: &Gate, capacity: usize) -> (Queue, Dropped) {
    let dropped = Dropped::default();
    let style = Arc::new(Style::new(Look::Json, None));
    (Queue::start(Sink::new("gate", gate.clone()), style, capacity, dropped.clone()).unwrap(), dropped)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

#[test]
fn lines_that_find_the_queue_full_are_counted_one_by_one_and_summed_up_in_one_line() {
    let gate = Gate::closed();
    let (queue, dropped) = queue(&gate, 100);
    queue.push(b"the first\n");
    gate.until(|behind| behind.writers == 1);
    for line in 0..17 {
        queue.push(format!("line {line:04}\n").as_bytes());
    }
    assert_eq!(dropped.full.get(), 7);
    assert!(!queue.flush(Instant::now() + Duration::from_millis(10)), "a held up output was flushed");
    gate.open();
    assert!(queue.flush(soon()));
    queue.push(b"the last\n");
    assert!(queue.flush(soon()));

    let written = gate.until(|_| true);
    assert_eq!(
        (written[0].as_str(), written[10].as_str(), written[12].as_str()),
        ("the first", "line 0009", "the last")
    );
    assert_eq!(written.len(), 13);
    let notice: serde_json::Value = serde_json::from_str(&written[11]).unwrap();
    assert_eq!((&notice["level"], &notice["fields"]["dropped"]), (&"WARN".into(), &7.into()));
    assert_eq!((dropped.too_long.get(), dropped.write_error.get()), (0, 0));
}

#[test]
fn whoever_waits_for_a_line_goes_on_when_it_is_written() {
    #[derive(Default)]
    struct Woken(AtomicBool);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let gate = Gate::closed();
    let (queue, _) = queue(&gate, CAPACITY);
    let woken = Arc::new(Woken::default());
    let waker = Arc::clone(&woken).into();
    let mut cx = Context::from_waker(&waker);
    assert_eq!(pin!(queue.written(|| ())).poll(&mut cx), Poll::Ready(true), "there is nothing to wait for");
    let mut written = pin!(queue.written(|| queue.push(b"shipped\n")));
    for _ in 0..3 {
        assert!(written.as_mut().poll(&mut cx).is_pending());
    }
    assert_eq!(lock(&queue.shared.state).waiting.len(), 1, "one task waits once");
    gate.until(|behind| behind.writers == 1);
    assert!(!woken.0.load(Ordering::SeqCst) && written.as_mut().poll(&mut cx).is_pending());
    gate.open();
    assert!(queue.flush(soon()));
    assert_eq!(written.as_mut().poll(&mut cx), Poll::Ready(true));
    let until = soon();
    while !woken.0.load(Ordering::SeqCst) {
        assert!(Instant::now() < until, "nobody was woken");
        thread::yield_now();
    }
    assert_eq!(gate.until(|_| true), ["shipped"]);
}

#[test]
fn whoever_waits_for_a_line_that_was_dropped_is_told() {
    let gate = Gate::default();
    let (queue, _) = queue(&gate, 100);
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(pin!(queue.written(|| queue.push(&[b'x'; 200]))).poll(&mut cx), Poll::Ready(false));
    queue.push(b"others\n");
    assert!(queue.flush(soon()));
    assert_eq!(pin!(queue.written(|| ())).poll(&mut cx), Poll::Ready(true), "that was before");
}

#[test]
fn a_line_that_could_never_fit_is_dropped_alone() {
    let gate = Gate::default();
    let (queue, dropped) = queue(&gate, 40 * 1024);
    queue.batch(b"before\n");
    queue.batch(&[b'x'; 50 * 1024]);
    queue.push(&[b'x'; 50 * 1024]);
    queue.batch(b"after\n");
    assert!(queue.flush(soon()));
    assert_eq!((dropped.too_long.get(), dropped.full.get()), (2, 0));
    let written = gate.until(|_| true);
    let lines: Vec<_> = written.iter().filter(|line| !line.contains("dropped")).collect();
    assert_eq!(lines, ["before", "after"]);
}

#[test]
fn a_batched_line_comes_out_by_itself_while_the_process_idles() {
    let gate = Gate::default();
    let (queue, _) = queue(&gate, CAPACITY);
    for round in 1..=3 {
        let handed_over = Instant::now();
        queue.batch(b"access\n");
        assert_eq!(gate.until(|behind| behind.written.len() == round * 7).len(), round);
        assert!(handed_over.elapsed() >= TICK, "round {round} was not gathered with what may follow");
    }
}

#[test]
fn a_stream_of_events_does_not_hold_batched_lines_back() {
    let gate = Gate::default();
    let (queue, _) = queue(&gate, CAPACITY);
    queue.batch(b"access\n");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // An event more often than the shards are due.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                queue.push(b"e\n");
                thread::sleep(TICK / 50);
            }
        });
        gate.until(|behind| behind.written.contains(&b'a'));
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_full_batch_is_handed_over_and_nothing_is_lost_at_a_flush() {
    let gate = Gate::default();
    let (queue, dropped) = queue(&gate, 16 * CAPACITY);
    let (threads, lines) = (8, 3_000);
    thread::scope(|scope| {
        for thread in 0..threads {
            let queue = &queue;
            scope.spawn(move || {
                for line in 0..lines {
                    queue.batch(format!("{thread} {line} {:64}\n", "").as_bytes());
                    if line % 997 == 0 {
                        assert!(queue.flush(soon()));
                    }
                }
            });
        }
    });
    assert!(queue.flush(soon()));
    let written = gate.until(|_| true);
    assert_eq!(dropped.full.get(), 0);
    assert_eq!(written.len(), threads * lines);
    for thread in 0..threads {
        let mine = written.iter().filter_map(|line| line.strip_prefix(&format!("{thread} ")));
        assert!(
            mine.map(|line| line.trim_end().parse::<usize>().unwrap()).eq(0..lines),
            "thread {thread} is out of order"
        );
    }
}

#[test]
fn a_dropped_queue_has_written_everything() {
    let gate = Gate::default();
    let (queue, _) = queue(&gate, CAPACITY);
    queue.push(b"event\n");
    queue.batch(b"access\n");
    drop(queue);
    assert_eq!(gate.until(|_| true), ["event", "access"]);
}

#[test]
fn a_replaced_output_gets_what_comes_after() {
    let (first, second) = (Gate::default(), Gate::default());
    let (queue, _) = queue(&first, CAPACITY);
    queue.push(b"one\n");
    assert!(queue.flush(soon()));
    queue.replace(Sink::new("second", second.clone()));
    queue.push(b"two\n");
    assert!(queue.flush(soon()));
    assert_eq!((first.until(|_| true), second.until(|_| true)), (vec!["one".to_owned()], vec!["two".to_owned()]));
}
