//! Reading bodies, with errors that say where.

use std::fmt;

use serde::de::DeserializeOwned;

/// A body that could not be read, and where in it.
#[derive(Debug)]
pub struct DecodeError {
    field: String,
    what: String,
}

impl DecodeError {
    /// What is wrong with which field, for extractors of your own; `.` for the whole body. `what` must not quote the
    /// body: it goes into logs and dead letters.
    pub fn new(field: impl Into<String>, what: impl Into<String>) -> Self {
        Self { field: field.into(), what: what.into() }
    }

    /// The path of the field that is wrong, for example `items[0].quantity`; `.` for the whole body.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The same, for a body that is itself the field of something.
    pub(crate) fn within(self, outer: &str) -> Self {
        let field = match self.field.as_str() {
            _ if outer == "." => self.field,
            "." => outer.to_owned(),
            field if field.starts_with('[') => format!("{outer}{field}"),
            field => format!("{outer}.{field}"),
        };
        Self { field, ..self }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "." => write!(f, "cannot read the body: {}", self.what),
            field => write!(f, "cannot read the body: field `{field}`: {}", self.what),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Reads JSON. Keeping the path costs as much as reading: only those who need it pay.
pub(crate) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(body).map_err(|_| explain::<T>(body))
}

fn explain<T: DeserializeOwned>(body: &[u8]) -> DecodeError {
    if body.is_empty() {
        return DecodeError::new(".", "it is empty, and JSON is expected");
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    match serde_path_to_error::deserialize::<_, T>(&mut json) {
        Err(error) => {
            let (at, what) = (error.path().to_string(), error.inner().to_string());
            match missing(&what).map(str::to_owned) {
                // The path ends where the field should be.
                Some(field) => DecodeError::new(field, what).within(&at),
                None => DecodeError::new(at, what),
            }
        }
        Ok(_) => {
            DecodeError::new(".", json.end().err().map_or_else(|| "not JSON".to_owned(), |error| error.to_string()))
        }
    }
}

/// The name in `missing field `quantity` at line 1 column 2`, which is how every deserializer words it.
fn missing(what: &str) -> Option<&str> {
    Some(what.strip_prefix("missing field `")?.split_once('`')?.0)
}
