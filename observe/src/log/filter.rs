//! Which events are logged.

use std::fmt;

use tracing_subscriber::EnvFilter;

/// A filter that was understood: the text in canonical form, and what it means.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) text: String,
    pub(super) meaning: EnvFilter,
}

/// Says which part of a filter cannot be read, and why. The filter in force is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct FilterError {
    part: String,
    why: String,
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// More than anyone types, and little enough for every event to be matched against.
const MAX_LENGTH: usize = 4096;

impl Filter {
    /// Reads a filter such as `info,orders=debug`. Levels of Gizmo that tracing does not have mean the nearest one.
    pub(super) fn parse(text: &str) -> Result<Self, FilterError> {
        if text.len() > MAX_LENGTH {
            return Err(FilterError::new(
                &text.chars().take(32).collect::<String>(),
                format!("the filter is longer than {MAX_LENGTH} bytes"),
            ));
        }
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let parts = parts.map(checked).collect::<Result<Vec<_>, _>>()?;
        if parts.is_empty() {
            return Err(FilterError::new(text, "it is empty; use `off` to log nothing"));
        }
        let text = parts.join(",");
        Ok(Self { meaning: meaning(&text)?, text })
    }
}

impl FilterError {
    fn new(part: &str, why: impl Into<String>) -> Self {
        Self { part: part.to_owned(), why: why.into() }
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "log filter part {:?} cannot be read: {}; expected a level ({}) or levels by target, such as `info,orders=debug`",
            self.part,
            self.why,
            LEVELS.join(", ")
        )
    }
}

fn checked(part: &str) -> Result<String, FilterError> {
    if !part.contains(['=', '[', ':', '/']) {
        return bare(part);
    }
    meaning(part).map(|_| part.to_owned())
}

fn meaning(text: &str) -> Result<EnvFilter, FilterError> {
    // Values are compared as text: a filter comes over the admin port, and a pattern could be made to be slow.
    EnvFilter::builder().with_regex(false).parse(text).map_err(|error| FilterError::new(text, error.to_string()))
}

/// A word by itself is a level or a target. A mistyped level would be taken for a target, which shows nothing of what
/// was meant and no error, so a word that is nearly a level is refused.
fn bare(word: &str) -> Result<String, FilterError> {
    let level = match word.to_ascii_lowercase().as_str() {
        "warning" => "warn".to_owned(),
        "fatal" | "panic" => "error".to_owned(),
        level => level.to_owned(),
    };
    if LEVELS.contains(&level.as_str()) || word.parse::<u8>().is_ok_and(|level| level <= 5) {
        return Ok(level);
    }
    if let Some(near) = LEVELS.iter().find(|known| strsim::damerau_levenshtein(known, &level) <= 1) {
        return Err(FilterError::new(
            word,
            format!("it is no level; did you mean `{near}`, or the target `{word}=trace`?"),
        ));
    }
    if word.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-') {
        return meaning(word).map(|_| word.to_owned());
    }
    Err(FilterError::new(word, "it is neither a level nor a target"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_put_into_one_form() {
        let canonical = |text| Filter::parse(text).unwrap().text;
        assert_eq!(canonical("info"), "info");
        assert_eq!(canonical(" INFO , orders=debug,, hyper::proto=warn"), "info,orders=debug,hyper::proto=warn");
        assert_eq!(canonical("WARNING"), "warn");
        assert_eq!(canonical("fatal"), "error");
        assert_eq!(canonical("rdkafka"), "rdkafka");
        assert_eq!(canonical("3"), "3");
        assert_eq!(canonical("[request{id=7}]=trace,info"), "[request{id=7}]=trace,info");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (text, part, hint) in [
            ("inof", "inof", "did you mean `info`"),
            ("info,orders=loud", "orders=loud", "level"),
            ("info,debg", "debg", "did you mean `debug`"),
            ("", "", "it is empty"),
            (" , ", " , ", "it is empty"),
            ("info,[span", "[span", "invalid"),
            ("in fo and more", "in fo and more", "neither a level nor a target"),
        ] {
            let error = Filter::parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{part:?}")) && error.contains(hint), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text: String, wild in "[a-z=\\[\\]{},: \"/é-]{0,24}") {
            let _ = (Filter::parse(&text), Filter::parse(&wild));
        }
    }
}
