use crate::problem::Error;

/// Why the program ends instead of running: it was asked for a text, or the configuration cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum Exit {
    /// `--help`, `--version`, `--print-config`, `--config-schema` or a passed `--check-config`: a text for standard
    /// output, code 0.
    Done(String),
    /// A mistake on the command line: a text for standard error, code 78.
    Usage(String),
    /// A configuration that cannot be used: all that is wrong with it, for standard error, code 78.
    Faults(Error),
}

impl Exit {
    /// Returns the process's exit code: 0, or 78 (`EX_CONFIG`).
    pub fn code(&self) -> u8 {
        match self {
            Self::Done(_) => 0,
            Self::Usage(_) | Self::Faults(_) => 78,
        }
    }

    /// Returns what to print on standard output; ends with a line break unless it is empty.
    pub fn stdout(&self) -> &str {
        match self {
            Self::Done(text) => text,
            Self::Usage(_) | Self::Faults(_) => "",
        }
    }

    /// Returns what to print on standard error, one line for each problem; ends with a line break unless it is empty.
    pub fn stderr(&self) -> &str {
        match self {
            Self::Done(_) => "",
            Self::Usage(text) => text,
            Self::Faults(error) => error.text(),
        }
    }

    pub(crate) fn done(text: &str) -> Self {
        Self::Done(with_line_break(text))
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(with_line_break(&text.into()))
    }
}

fn with_line_break(text: &str) -> String {
    format!("{}\n", text.trim_end())
}
