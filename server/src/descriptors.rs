//! File descriptors, the last of which connections must not take: then no probe could be answered, no file opened and no
//! broker connected to.

use mainspring_observe::metrics::{max_descriptors, open_descriptors};

/// What is kept for the admin listener, files, brokers and databases ...
const RESERVE: usize = 64;
/// ... unless that is more than one part in this many of all.
const LARGEST_SHARE: usize = 4;

/// How many connections there may be, if `wanted` are configured. Takes as many descriptors as it needs for that, if the
/// system lets it: the soft limit is for programs that use `select`. Warns when it does not suffice.
pub(crate) fn cap(wanted: usize) -> usize {
    let Some(limit) = max_descriptors() else { return wanted };
    let open = open_descriptors().unwrap_or_default();
    let needed = wanted.saturating_add(open + RESERVE);
    let limit = if limit < needed { raise(needed).unwrap_or(limit) } else { limit };
    let cap = within(limit, open, wanted);
    if cap < wanted {
        tracing::warn!(
            configured = wanted,
            max_connections = cap,
            descriptors = limit,
            needed,
            "http.max_connections is more than there are file descriptors for, and was lowered; raise their limit \
             (ulimit -n, LimitNOFILE= of systemd), or configure fewer connections"
        );
    }
    cap
}

/// Raises the soft limit towards `needed`; answers what it is then.
fn raise(needed: usize) -> Option<usize> {
    let limit = rlimit::increase_nofile_limit(u64::try_from(needed).ok()?).ok()?;
    usize::try_from(limit).ok()
}

/// What is left for connections; a quarter of all, however many others have taken by now.
fn within(limit: usize, open: usize, wanted: usize) -> usize {
    let share = limit / LARGEST_SHARE;
    let left = limit.saturating_sub(open + RESERVE.min(share));
    wanted.min(left.max(share).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_others() {
        assert_eq!(within(65_536, 20, 10_000), 10_000);
        assert_eq!(within(1_024, 20, 10_000), 940);
        assert_eq!(within(256, 20, 100), 100);
        assert_eq!(within(40, 15, 10_000), 15);
        assert_eq!((within(1_024, 1_000, 10_000), within(3, 3, 10_000)), (256, 1));
    }
}
