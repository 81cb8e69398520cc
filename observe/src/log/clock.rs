//! Timestamps: RFC 3339, UTC, microseconds.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

/// `YYYY-MM-DDTHH:MM:SS`
type Date = [u8; 19];

thread_local! {
    /// The calendar is asked once a second and thread.
    static LAST: Cell<(u64, Date)> = const { Cell::new((0, *b"1970-01-01T00:00:00")) };
}

/// Appends `time`, for example `2026-02-03T04:05:06.000789Z`. What the calendar does not reach is the epoch.
pub(super) fn write(out: &mut Vec<u8>, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    out.extend_from_slice(&date(since.as_secs()));
    let mut fraction = *b".000000Z";
    let mut micros = since.subsec_micros();
    for digit in fraction[1..7].iter_mut().rev() {
        *digit = b'0' + (micros % 10) as u8;
        micros /= 10;
    }
    out.extend_from_slice(&fraction);
}

/// Appends `time` as Apache's logs have it, for example `03/Feb/2026:04:05:06 +0000`.
pub(super) fn write_common(out: &mut Vec<u8>, time: SystemTime) {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let date = date(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
    let month = usize::from((date[5] - b'0') * 10 + date[6] - b'0').saturating_sub(1);
    for part in [&date[8..10], b"/", MONTHS[month % 12].as_bytes(), b"/", &date[..4], b":", &date[11..], b" +0000"] {
        out.extend_from_slice(part);
    }
}

fn date(second: u64) -> Date {
    let (last, date) = LAST.try_with(Cell::get).unwrap_or((0, *b"1970-01-01T00:00:00"));
    if last == second {
        return date;
    }
    let text = i64::try_from(second)
        .ok()
        .and_then(|second| jiff::Timestamp::from_second(second).ok())
        .unwrap_or_default()
        .to_string();
    let date = text.as_bytes().first_chunk::<19>().copied().unwrap_or(date);
    let _ = LAST.try_with(|last| last.set((second, date)));
    date
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_written_to_the_microsecond() {
        let at = |seconds, nanos| {
            let mut out = Vec::new();
            write(&mut out, UNIX_EPOCH + Duration::new(seconds, nanos));
            String::from_utf8(out).unwrap()
        };
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(at(1_709_164_799, 999_999_999), "2024-02-28T23:59:59.999999Z");
        assert_eq!(at(1_709_164_800, 1_000), "2024-02-29T00:00:00.000001Z");
        assert_eq!(at(951_782_400, 42_000_000), "2000-02-29T00:00:00.042000Z");
        assert_eq!(at(u64::MAX / 2, 0), "1970-01-01T00:00:00.000000Z");
    }

    #[test]
    fn apaches_times_name_the_month() {
        let mut out = Vec::new();
        write_common(&mut out, UNIX_EPOCH + Duration::from_secs(971_211_336));
        assert_eq!(String::from_utf8(out).unwrap(), "10/Oct/2000:20:55:36 +0000");
    }
}
