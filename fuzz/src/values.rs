//! Durations, sizes and log filters: what is read is written and read back the same; what is not says what is expected.

use std::fmt::Display;
use std::str::FromStr;

use mainspring_config::{ByteSize, Duration, Report};
use mainspring_observe::log;

use crate::{SECRET, assert_hidden};

pub(crate) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    comes_back::<Duration>(text);
    comes_back::<ByteSize>(text);
    // Two ways to write the same value of a field panic in debug builds of tracing-subscriber.
    if text.matches('{').count() > 1 {
        return;
    }
    let filter = log::Config { filter: text.to_owned(), ..log::Config::default() };
    for problem in Report::of(&filter) {
        assert!(problem.key == "filter" && !problem.what.is_empty(), "{problem}");
        assert!(!problem.to_string().contains(char::is_control), "more than a line: {problem}");
    }
}

fn comes_back<T>(text: &str)
where
    T: FromStr<Err: Display> + Display + PartialEq + std::fmt::Debug,
{
    match T::from_str(text) {
        Ok(value) => {
            let written = value.to_string();
            assert_eq!(T::from_str(&written).ok().as_ref(), Some(&value), "{text:?} is written as {written:?}");
        }
        // The text may be a secret.
        Err(error) => {
            assert!(error.to_string().starts_with("expected "), "{error}");
            let error = T::from_str(&format!("{text}{SECRET}")).err().map(|error| error.to_string());
            assert_hidden("an error", &error.unwrap_or_default());
        }
    }
}
