//! How a daemon ends when it does not end well.

use std::fmt;

use mainspring_config as config;
use mainspring_daemon::{BoxError, Chain};

/// What `main`'s async function returns.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

/// Why the process ends, with the code it exits with.
///
/// Made from any error by `?`. The code is then 78 if a [`config::Error`] is anywhere among its causes (a URL with an
/// unknown scheme, say), and 69 otherwise: something required at start could not be reached. It is on purpose no
/// [`std::error::Error`] itself, as that would forbid the conversion.
pub struct Error {
    code: u8,
    what: BoxError,
}

/// Could not bind, or could not reach what is required at start (`EX_UNAVAILABLE`).
pub const EX_UNAVAILABLE: u8 = 69;
/// A critical daemon died (`EX_SOFTWARE`).
pub const EX_SOFTWARE: u8 = 70;
/// The shutdown budget ran out (`EX_TEMPFAIL`).
pub const EX_TEMPFAIL: u8 = 75;
/// The configuration is faulty (`EX_CONFIG`).
pub const EX_CONFIG: u8 = 78;

impl Error {
    /// An error with an exit code of its own.
    pub fn with_code(code: u8, what: impl Into<BoxError>) -> Self {
        Self { code, what: what.into() }
    }

    /// The code the process exits with.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// The cause.
    pub fn cause(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.what
    }
}

impl<E: Into<BoxError>> From<E> for Error {
    fn from(error: E) -> Self {
        let what = error.into();
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&*what);
        while let Some(error) = cause {
            if error.is::<config::Error>() {
                return Self { code: EX_CONFIG, what };
            }
            cause = error.source();
        }
        Self { code: EX_UNAVAILABLE, what }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Chain(&*self.what).fmt(f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} (exit code {})", self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(config::Error);
    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("cannot open the publisher")
        }
    }
    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn a_configuration_fault_deep_inside_decides_the_code() {
        let fault = config::Error::one("topic", "env ORDERS_TOPIC", "unknown scheme", "");
        let error = Error::from(Outer(fault));
        assert_eq!(error.code(), EX_CONFIG);
        assert!(error.to_string().starts_with("cannot open the publisher: topic"), "{error}");
    }

    #[test]
    fn anything_else_before_the_start_is_unavailable() {
        assert_eq!(Error::from("no database").code(), EX_UNAVAILABLE);
    }
}
