//! What a handler answers when it could not handle a message.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mainspring_daemon::BoxError;

use crate::metrics::Class;

/// Why a message was not handled, and what should become of it.
///
/// `?` turns any error into a retry. A failure is deliberately no `std::error::Error` itself, or `?` could not do that.
pub struct Failure {
    pub(crate) verdict: Verdict,
    pub(crate) class: Class,
    error: BoxError,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Retry {
        after: Option<Duration>,
    },
    Reject,
    /// The message could not be read: what becomes of it is up to the policy.
    Undecodable,
}

/// A [`Failure`] as an error, so that tower services and layers can carry it. Any other error that comes out of a
/// service means retry.
pub struct HandlerError(Failure);

impl Failure {
    /// The message should be delivered again, as the router's [`Policy`](crate::Policy) says.
    pub fn retry(error: impl Into<BoxError>) -> Self {
        Self { verdict: Verdict::Retry { after: None }, class: Class::Error, error: error.into() }
    }

    /// The message can never be handled: it goes to the dead letters at once.
    pub fn reject(error: impl Into<BoxError>) -> Self {
        Self { verdict: Verdict::Reject, class: Class::Reject, error: error.into() }
    }

    /// The message could not be read. For extractors; [`Policy::undecodable`](crate::Policy::undecodable) decides.
    pub fn undecodable(error: impl Into<BoxError>) -> Self {
        Self { verdict: Verdict::Undecodable, class: Class::Decode, error: error.into() }
    }

    /// Retries after exactly this long, instead of what the policy's backoff says. Rejections stay rejections.
    pub fn after(mut self, delay: Duration) -> Self {
        if let Verdict::Retry { after } = &mut self.verdict {
            *after = Some(delay);
        }
        self
    }

    /// Whether the message is to be rejected without another try.
    pub fn is_reject(&self) -> bool {
        self.verdict == Verdict::Reject
    }

    /// What went wrong.
    pub fn error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.error
    }

    pub(crate) fn panicked(message: String) -> Self {
        Self { class: Class::Panic, ..Self::retry(format!("the handler panicked: {message}")) }
    }

    pub(crate) fn timed_out(timeout: Duration) -> Self {
        Self { class: Class::Timeout, ..Self::retry(format!("the handler took longer than {timeout:?}")) }
    }

    /// The same failure again, for another message of a batch.
    pub(crate) fn shared(failure: &Arc<Self>) -> Self {
        Self { verdict: failure.verdict, class: failure.class, error: Box::new(SharedFailure(Arc::clone(failure))) }
    }

    pub(crate) fn from_service(error: BoxError) -> Self {
        match error.downcast::<HandlerError>() {
            Ok(error) => error.0,
            Err(error) => Self::retry(error),
        }
    }
}

/// A failure of several messages.
#[derive(Debug)]
struct SharedFailure(Arc<Failure>);

impl fmt::Display for SharedFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.error, f)
    }
}

impl StdError for SharedFailure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.error.source()
    }
}

impl<E: Into<BoxError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::retry(error)
    }
}

impl HandlerError {
    /// The failure inside.
    pub fn failure(&self) -> &Failure {
        &self.0
    }
}

impl From<Failure> for HandlerError {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure").field("verdict", &self.verdict).field("error", &self.error).finish_non_exhaustive()
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl StdError for HandlerError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.error.source()
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
