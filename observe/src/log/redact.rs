//! Fields that are never shown.

/// The names of fields whose values are secret.
#[derive(Clone, Debug, Default)]
pub(super) struct Redaction(Vec<String>);

/// What stands in the place of a secret.
pub(super) const MASK: &str = "***";

impl Redaction {
    pub(super) fn new(names: &[String]) -> Self {
        Self(names.iter().map(|name| name.chars().map(folded).collect()).collect())
    }

    /// Whether a field of this name is secret: its name, or the last words of it, is one that was given. `db.password`
    /// and `X-Api-Key` are, `passwords_changed` is not.
    pub(super) fn hides(&self, name: &str) -> bool {
        self.0.iter().any(|secret| {
            let Some(start) = name.len().checked_sub(secret.len()) else { return false };
            let begins_a_word = start == 0 || b"._- ".contains(&name.as_bytes()[start - 1]);
            begins_a_word && name.is_char_boundary(start) && name[start..].chars().map(folded).eq(secret.chars())
        })
    }
}

/// Names that differ in case, or in which sign stands between words, are one.
fn folded(letter: char) -> char {
    if letter == '-' { '_' } else { letter.to_ascii_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_of_a_name_decide() {
        let redaction = Redaction::new(&["password".to_owned(), "set-cookie".to_owned(), "x-api-key".to_owned()]);
        for name in ["password", "Password", "db.password", "old_password", "http.set_cookie", "X-Api-Key", "X_API_KEY"]
        {
            assert!(redaction.hides(name), "{name}");
        }
        for name in ["passwords", "password_age", "nopassword", "cookie", "", "é", "key"] {
            assert!(!redaction.hides(name), "{name}");
        }
        assert!(!Redaction::default().hides("password"));
    }
}
