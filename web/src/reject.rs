//! What the extractors' rejections have in common.

use std::error::Error;

use crate::Problem;

/// No text of a client's is echoed beyond this many bytes: serde's messages quote whole values.
const ECHO: usize = 200;

/// A field that is missing or of the wrong type, with the path that leads to it.
///
/// serde reports a missing field at the object that lacks it, so its name is taken from the message.
pub(crate) fn field(problem: fn(String) -> Problem, path: &str, message: &str) -> Problem {
    let path = if path == "." { "" } else { path };
    let missing = message.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
    let field = match (path, missing) {
        (path, None) => path.to_owned(),
        ("", Some(name)) => name.to_owned(),
        (path, Some(name)) => format!("{path}.{name}"),
    };
    let field = clip(&field);
    match (field.as_str(), missing) {
        ("", _) => problem(clip(message)),
        (_, Some(_)) => problem(format!("`{field}`: is required but missing")).with("field", field),
        _ => problem(format!("`{field}`: {}", clip(message))).with("field", field),
    }
}

/// Shortens what may quote the client's input, at a character's edge.
pub(crate) fn clip(text: &str) -> String {
    if text.len() <= ECHO {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(ECHO)])
}

/// An error and its sources in one line, leaving out a source that its parent has already quoted.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for source in std::iter::successors(error.source(), |&error| error.source()) {
        let source = source.to_string();
        if !text.ends_with(&source) {
            text.push_str(": ");
            text.push_str(&source);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_field_is_named_with_its_path() {
        let problem = |path| field(Problem::unprocessable, path, "missing field `id` at line 1 column 2");
        assert_eq!(problem(".").member("field").unwrap(), "id");
        assert_eq!(problem("items[2]").member("field").unwrap(), "items[2].id");
    }

    #[test]
    fn long_input_is_cut_between_characters() {
        let clipped = clip(&"é".repeat(1000));
        assert!(clipped.len() <= ECHO + '…'.len_utf8());
        assert!(clipped.ends_with("é…"));
    }
}
