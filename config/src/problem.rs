use std::fmt;

/// One thing that is wrong with the configuration.
///
/// Its `Display` is one line, `key (source): what; hint`, whatever the strings contain.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The key, dotted; `-` where none is known.
    pub key: String,
    /// Where the value came from: `config.toml:4`, `env ORDERS_TOPIC`, `flag --set topic`, `default`.
    pub source: String,
    /// What is wrong and what is expected instead. Holds no secret.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    pub(crate) fn new(key: impl fmt::Display, source: impl fmt::Display, what: impl Into<String>) -> Self {
        Self { key: key.to_string(), source: source.to_string(), what: what.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into()).filter(|hint| !hint.is_empty());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = format!("{} ({}): {}", self.key, self.source, self.what);
        if let Some(hint) = &self.hint {
            line.push_str("; ");
            line.push_str(hint);
        }
        // One problem, one line: scripts count lines, and a value may not fake a second problem.
        for c in line.chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { fmt::Write::write_char(f, c)? }
        }
        Ok(())
    }
}

/// A configuration that cannot be used: everything that is wrong with it, sorted by key.
///
/// `Display` has one line for each problem. Whoever ends the process answers this error, found anywhere in a chain of
/// sources, with exit code 78 (`EX_CONFIG`).
#[derive(Clone, Debug)]
pub struct Error {
    problems: Vec<Problem>,
    text: String,
}

impl Error {
    /// Makes an error of one problem, for code that finds out about a value later than the loader can, such as a
    /// broker URL whose scheme nobody registered. An empty `hint` is none.
    pub fn one(
        key: impl Into<String>,
        source: impl Into<String>,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::new(vec![Problem::new(key.into(), source.into(), what).hint(hint)])
    }

    pub(crate) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| (&a.key, &a.source, &a.what).cmp(&(&b.key, &b.source, &b.what)));
        problems.dedup();
        let text = problems.iter().map(|problem| format!("{problem}\n")).collect();
        Self { text, problems }
    }

    /// Returns the problems, sorted by key; there is at least one.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// One line for each problem, each with its line break.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.trim_end_matches('\n'))
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_one_line_whatever_it_holds() {
        let problem = Problem::new("a\nb", "c\rd", "e\u{1b}[31m").hint("f\ng");
        assert_eq!(problem.to_string(), "a\\nb (c\\rd): e\\u{1b}[31m; f\\ng");
    }

    #[test]
    fn sorts_by_key_and_drops_repeats() {
        let error =
            Error::new(vec![Problem::new("b", "x", "y"), Problem::new("a", "x", "y"), Problem::new("b", "x", "y")]);
        assert_eq!(error.to_string(), "a (x): y\nb (x): y");
    }
}
