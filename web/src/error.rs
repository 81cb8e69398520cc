//! What a handler returns when something fails.

use axum::response::{IntoResponse, Response};

use crate::{Problem, body, reject};

/// Any error, owned and sendable.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A handler's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error of a handler: either a [`Problem`], which is answered as it is, or any other error, which
/// is answered with a bare 500 while its cause and the causes behind it go to the log.
///
/// `?` makes one from every `std::error::Error`, and from text. An error that comes from reading the
/// request's body is the client's, not the server's: it is answered as [`body::problem`] says.
///
/// It is no `std::error::Error` itself, since then `?` could not take every other one.
#[derive(Debug)]
pub struct Error(Kind);

#[derive(Debug)]
enum Kind {
    Problem(Problem),
    Cause(BoxError),
}

impl Error {
    /// The problem that the client will see.
    pub fn problem(&self) -> Problem {
        match &self.0 {
            Kind::Problem(problem) => problem.clone(),
            Kind::Cause(cause) => body::problem(cause.as_ref()).unwrap_or_else(Problem::internal),
        }
    }

    /// The error that only the log will see; `None` for a problem.
    pub fn cause(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0 {
            Kind::Problem(_) => None,
            Kind::Cause(cause) => Some(cause.as_ref()),
        }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self(Kind::Problem(problem))
    }
}

impl<E: Into<BoxError>> From<E> for Error {
    fn from(cause: E) -> Self {
        Self(Kind::Cause(cause.into()))
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let problem = self.problem();
        if let Some(cause) = self.cause().filter(|_| problem.status().is_server_error()) {
            tracing::error!(error = %reject::chain(cause), "handler failed");
        }
        problem.into_response()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::to_bytes;

    use super::*;
    use crate::body::{TimedOut, TooLarge};

    #[derive(Debug, thiserror::Error)]
    #[error("query failed")]
    struct Query(#[source] std::io::Error);

    fn failing() -> Result<()> {
        Err(Query(std::io::Error::other("password=hunter2")))?;
        Ok(())
    }

    fn problem() -> Result<()> {
        Err(Problem::not_found("no such cat"))?;
        Ok(())
    }

    fn text() -> Result<()> {
        Err("just text")?;
        Ok(())
    }

    async fn body_of(error: Error) -> (u16, String) {
        let response = error.into_response();
        let status = response.status().as_u16();
        let bytes = to_bytes(response.into_body(), 4096).await.unwrap();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn any_error_is_a_500_that_keeps_its_cause_to_itself() {
        for error in [failing().unwrap_err(), text().unwrap_err()] {
            let (status, body) = body_of(error).await;
            assert_eq!(status, 500);
            assert!(!body.contains("hunter2") && !body.contains("query") && !body.contains("just"), "{body}");
        }
    }

    /// Keeps what is logged on this thread, as text.
    #[derive(Clone, Default)]
    struct Logged(std::sync::Arc<std::sync::Mutex<String>>);

    impl tracing::field::Visit for Logged {
        fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
            self.0.lock().unwrap().push_str(&format!("{field}={value:?};"));
        }
    }

    impl tracing::Subscriber for Logged {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            event.record(&mut self.clone());
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    fn logged(error: Error) -> String {
        let log = Logged::default();
        tracing::subscriber::with_default(log.clone(), || error.into_response());
        log.0.lock().unwrap().clone()
    }

    #[test]
    fn the_log_has_the_cause_and_what_caused_it() {
        assert_eq!(logged(failing().unwrap_err()), "message=handler failed;error=query failed: password=hunter2;");
    }

    #[test]
    fn what_the_client_did_wrong_is_no_error_in_the_log() {
        assert_eq!(logged(problem().unwrap_err()), "");
        assert_eq!(logged(Error::from(TooLarge { limit: 1 })), "");
    }

    #[tokio::test]
    async fn a_problem_passes_as_it_is() {
        let (status, body) = body_of(problem().unwrap_err()).await;
        assert_eq!(status, 404);
        assert!(body.contains("no such cat"), "{body}");
    }

    #[tokio::test]
    async fn a_handler_that_reads_the_raw_body_need_not_know_the_limits() {
        let too_large = Error::from(axum::Error::new(TooLarge { limit: 10 }));
        assert_eq!(body_of(too_large).await.0, 413);
        let timed_out = Error::from(axum::Error::new(TimedOut { after: Duration::from_secs(1) }));
        assert_eq!(body_of(timed_out).await.0, 408);
    }
}
