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
        let parts = last_of_each(parts.map(checked).collect::<Result<Vec<_>, _>>()?);
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

/// Of parts for the same values of fields the last one counts. Tracing would say so too, but in debug builds it panics.
fn last_of_each(mut parts: Vec<String>) -> Vec<String> {
    let scope = |part: &str| part.rfind("}]").map(|end| part[..end].to_owned());
    let scopes: Vec<_> = parts.iter().map(|part| scope(part)).collect();
    let mut at = 0..;
    parts.retain(|_| at.next().is_some_and(|at| scopes[at].is_none() || !scopes[at + 1..].contains(&scopes[at])));
    parts
}

fn meaning(text: &str) -> Result<EnvFilter, FilterError> {
    // Values are compared as text: a filter comes over the admin port, and a pattern could be made to be slow.
    EnvFilter::builder().with_regex(false).parse(text).map_err(|error| FilterError::new(text, error.to_string()))
}

/// A word by itself is a level. Tracing would take one that it does not know for a target, and then show nothing of what
/// was meant, not even errors: a target is written with its level.
fn bare(word: &str) -> Result<String, FilterError> {
    let level = match word.to_ascii_lowercase().as_str() {
        "warning" => "warn".to_owned(),
        "fatal" | "panic" => "error".to_owned(),
        level => level.to_owned(),
    };
    if LEVELS.contains(&level.as_str()) || word.parse::<u8>().is_ok_and(|level| level <= 5) {
        return Ok(level);
    }
    let near = LEVELS.iter().find(|known| strsim::damerau_levenshtein(known, &level) <= 1);
    let meant = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
    if word.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-') {
        return Err(FilterError::new(word, format!("it is no level; {meant}a target is written as `{word}=debug`")));
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
        assert_eq!(canonical("rdkafka=debug"), "rdkafka=debug");
        assert_eq!(canonical("3"), "3");
        assert_eq!(canonical("[request{id=7}]=trace,info"), "[request{id=7}]=trace,info");
    }

    #[test]
    fn of_two_levels_for_one_value_of_a_field_the_last_one_counts() {
        let text = "[request{id=a}]=trace,info,[request{id=b}]=debug,[request{id=a}]=warn";
        assert_eq!(Filter::parse(text).unwrap().text, "info,[request{id=b}]=debug,[request{id=a}]=warn");
    }

    #[test]
    fn gizmos_levels_are_understood() {
        for (level, meant) in [
            ("panic", "error"),
            ("fatal", "error"),
            ("error", "error"),
            ("warning", "warn"),
            ("warn", "warn"),
            ("info", "info"),
            ("Debug", "debug"),
            ("TRACE", "trace"),
        ] {
            assert_eq!(Filter::parse(level).unwrap().text, meant);
        }
    }

    #[test]
    fn a_word_that_is_no_level_is_not_taken_for_a_target() {
        for word in ["verbose", "bogus", "none", "notice", "critical", "all", "rdkafka"] {
            for text in [word.to_owned(), format!("info,{word}")] {
                let error = Filter::parse(&text).unwrap_err().to_string();
                assert!(error.contains("it is no level") && error.contains(&format!("`{word}=debug`")), "{error}");
                assert!(error.contains("off, error, warn, info, debug, trace"), "{error}");
            }
        }
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
