//! What can go wrong between an application and a broker.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use mainspring_daemon::BoxError;

/// An error of a publisher, a subscriber, a settlement, or of opening one of them.
///
/// It reads `backend: operation: what happened`; the cause, if there is one, is its `source()`.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    retryable: bool,
    backend: &'static str,
    operation: &'static str,
    what: Cow<'static, str>,
    source: Option<BoxError>,
}

/// What sort of thing went wrong: what a program may want to branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A URL, an option or a setting is wrong. A [`mainspring_config::Error`] is in the source chain.
    Config,
    /// The topic, queue or subscription does not exist.
    NotFound,
    /// The broker knows us and says no, or does not know us.
    PermissionDenied,
    /// A message is over a limit of the broker, and was not sent.
    TooLarge,
    /// A message cannot be represented by the broker, and was not sent.
    Invalid,
    /// The broker asks us to slow down, or a queue is full.
    Throttled,
    /// The broker cannot be reached just now.
    Unavailable,
    /// No answer came in time. The operation may or may not have taken place, unless the error says which.
    Timeout,
    /// The lease or the partition was lost before the settlement: another consumer may have the message.
    Lost,
    /// The broker cannot do this. Never retryable.
    Unsupported,
    /// The publisher or subscriber is closed.
    Closed,
    /// Anything else.
    Other,
}

impl Error {
    /// An error of `operation`; retryable if errors of this kind usually are.
    pub fn new(kind: ErrorKind, operation: &'static str, what: impl Into<Cow<'static, str>>) -> Self {
        let retryable = matches!(kind, ErrorKind::Throttled | ErrorKind::Unavailable | ErrorKind::Timeout);
        Self(Box::new(Inner { kind, retryable, backend: "pubsub", operation, what: what.into(), source: None }))
    }

    /// A fault of the configuration. The process that ends with it exits with 78.
    pub fn config(operation: &'static str, problem: mainspring_config::Error) -> Self {
        Self::new(ErrorKind::Config, operation, "bad configuration").with_source(problem)
    }

    /// A publish that had no answer in time.
    pub(crate) fn unconfirmed(backend: &'static str) -> Self {
        let what = "no confirmation in time; the message may or may not have been published";
        Self::new(ErrorKind::Timeout, "publish", what).with_backend(backend)
    }

    /// A publish whose time was over before anything was sent: why.
    pub(crate) fn unsent(backend: &'static str, why: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Timeout, "publish", format!("nothing was sent: {why}")).with_backend(backend)
    }

    /// Names the broker, for example `kafka`.
    pub fn with_backend(mut self, backend: &'static str) -> Self {
        self.0.backend = backend;
        self
    }

    /// Keeps the cause.
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Says whether trying again may help, where the kind alone does not tell.
    pub fn with_retryable(mut self, retryable: bool) -> Self {
        self.0.retryable = retryable;
        self
    }

    /// What sort of error it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same operation may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// The broker's name, `pubsub` for errors that the kit itself makes.
    pub fn backend(&self) -> &'static str {
        self.0.backend
    }

    /// What was being done, for example `publish`.
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }
}

impl ErrorKind {
    /// The name used in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::NotFound => "not_found",
            Self::PermissionDenied => "permission_denied",
            Self::TooLarge => "too_large",
            Self::Invalid => "invalid",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Lost => "lost",
            Self::Unsupported => "unsupported",
            Self::Closed => "closed",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.0.backend, self.0.operation, self.0.what)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("retryable", &self.0.retryable)
            .field("message", &format_args!("{self}"))
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
