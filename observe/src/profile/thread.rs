//! The threads of this process, as the kernel sees them.

use std::fs;
use std::time::Duration;

/// One thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// The kernel's number for it.
    pub id: u64,
    /// At most 15 bytes: the kernel cuts longer names.
    pub name: String,
    /// The kernel's word for what it does: `R` runs, `S` sleeps, `D` waits for a disk, `T` is stopped.
    pub state: char,
    /// The time that it has run so far.
    pub cpu: Duration,
}

/// All threads, those first that have run longest. Empty where there is no `/proc`.
pub fn threads() -> Vec<Thread> {
    let entries = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    // A thread may end while it is looked at.
    let mut threads: Vec<_> =
        entries.filter_map(|entry| parse(&fs::read_to_string(entry.path().join("stat")).ok()?)).collect();
    threads.sort_by(|a, b| b.cpu.cmp(&a.cpu).then(a.id.cmp(&b.id)));
    threads
}

fn parse(stat: &str) -> Option<Thread> {
    // The name may have spaces and brackets itself.
    let (id, rest) = stat.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Thread {
        id: id.parse().ok()?,
        name: name.to_owned(),
        state: fields.first()?.chars().next()?,
        // USER_HZ is 100 wherever Linux runs today.
        cpu: Duration::from_millis((ticks(11)? + ticks(12)?) * 10),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "43 (a) b (c) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 7 0 12345 1000000 300 0";
        let expected = Thread { id: 43, name: "a) b (c".to_owned(), state: 'S', cpu: Duration::from_secs(3) };
        assert_eq!(parse(stat), Some(expected));
        assert_eq!(parse("43 (a"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_thread_is_listed_by_its_name() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let (started, running) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("a-named-one".to_owned()).spawn(move || {
            started.send(()).unwrap();
            stopped.recv()
        });
        running.recv().unwrap();
        assert!(threads().iter().any(|thread| thread.name == "a-named-one"), "{:?}", threads());
        drop(stop);
        let _ = thread.unwrap().join().unwrap();
    }
}
