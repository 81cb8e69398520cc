use std::hash::{BuildHasher, Hasher, RandomState};

use serde_json::Value as Json;

use crate::secret::MASK;

/// Keeps secrets out of every tree that is merged, printed or put into a message: those hold tokens.
///
/// No `Debug`: this is where the secrets are.
pub(crate) struct Vault {
    mark: String,
    values: Vec<Json>,
}

impl Vault {
    pub(crate) fn new() -> Self {
        // Random, so that no text in a file can name another key's secret.
        let mark = format!("\u{0}{:016x}:", RandomState::new().build_hasher().finish());
        Self { mark, values: Vec::new() }
    }

    /// Takes a secret and gives the token that stands for it.
    pub(crate) fn put(&mut self, value: Json) -> String {
        self.values.push(value);
        format!("{}{}", self.mark, self.values.len() - 1)
    }

    /// Puts the secrets in place of their tokens.
    pub(crate) fn reveal(&self, json: &Json) -> Json {
        self.replace(json, &|secret| secret.clone())
    }

    /// Puts `***` in place of the tokens.
    pub(crate) fn mask(&self, json: &Json) -> Json {
        self.replace(json, &|_| MASK.into())
    }

    pub(crate) fn holds_any_of(&self, json: &Json) -> bool {
        match json {
            Json::String(text) => self.find(text).is_some(),
            Json::Array(items) => items.iter().any(|item| self.holds_any_of(item)),
            Json::Object(entries) => entries.values().any(|value| self.holds_any_of(value)),
            _ => false,
        }
    }

    /// Takes secrets out of a text that somebody else wrote.
    pub(crate) fn scrub(&self, text: &str) -> String {
        self.values.iter().fold(text.to_owned(), |text, value| match value {
            Json::String(secret) if !secret.is_empty() => text.replace(secret.as_str(), MASK),
            _ => text,
        })
    }

    fn replace(&self, json: &Json, with: &dyn Fn(&Json) -> Json) -> Json {
        match json {
            Json::String(text) => self.find(text).map_or_else(|| json.clone(), with),
            Json::Array(items) => items.iter().map(|item| self.replace(item, with)).collect(),
            Json::Object(entries) => {
                entries.iter().map(|(key, value)| (key.clone(), self.replace(value, with))).collect()
            }
            _ => json.clone(),
        }
    }

    fn find(&self, text: &str) -> Option<&Json> {
        self.values.get(text.strip_prefix(&self.mark)?.parse::<usize>().ok()?)
    }
}
