//! Errors on one line.

use std::error::Error as StdError;
use std::fmt;

/// An error and, behind colons, what caused it in turn: what a log event, a health check or an exit wants to say.
///
/// A cause that is part of the text before it is left out: many errors repeat their source in their own text.
///
/// ```
/// use mainspring_daemon::Chain;
///
/// let error = std::io::Error::other("nobody listens");
/// assert_eq!(Chain(&error).to_string(), "nobody listens");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(pub &'a (dyn StdError + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        for cause in std::iter::successors(self.0.source(), |&cause| cause.source()) {
            let text = cause.to_string();
            if !said.contains(&text) {
                write!(f, ": {text}")?;
                said = text;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Says(&'static str, Option<Box<Self>>);

    impl fmt::Display for Says {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl StdError for Says {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            self.1.as_deref().map(|cause| cause as _)
        }
    }

    #[test]
    fn causes_follow_and_none_is_said_twice() {
        let refused = Says("connection refused", None);
        let connect = Says("cannot connect: connection refused", Some(Box::new(refused)));
        let error = Says("cannot publish", Some(Box::new(connect)));
        assert_eq!(Chain(&error).to_string(), "cannot publish: cannot connect: connection refused");
    }
}
