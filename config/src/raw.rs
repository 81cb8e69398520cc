use std::sync::Arc;

/// Where a value was written, as the reader of an error sees it: `config.toml:4`, `env PORT`, `flag --set topic`.
pub(crate) type Origin = Arc<String>;

/// What a built-in default has for its origin.
pub(crate) const DEFAULT: &str = "default";

/// A value as its source wrote it, before the schema has said what it is.
///
/// No `Debug`: it may hold secrets.
#[derive(Clone)]
pub(crate) enum Raw {
    Null,
    Bool(bool),
    Int(i128),
    /// A number that is not whole, as it was written.
    Float(String),
    Str(String),
    /// A YAML scalar without quotes: the schema decides what it is.
    Plain(String),
    /// A variable or a flag: the schema decides what it is.
    Text(String),
    List(Vec<Spot>),
    Table(Vec<(String, Spot)>),
}

/// A raw value and the place it stands at.
#[derive(Clone)]
pub(crate) struct Spot {
    pub(crate) raw: Raw,
    pub(crate) origin: Origin,
}

/// All that one source says. A higher rank wins; layers of one rank are told apart by their order.
pub(crate) struct Layer {
    pub(crate) rank: usize,
    pub(crate) top: Spot,
}

impl Spot {
    pub(crate) fn new(raw: Raw, origin: &Origin) -> Self {
        Self { raw, origin: Arc::clone(origin) }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match &self.raw {
            Raw::Table(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, spot)| spot),
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.raw {
            Raw::Str(text) | Raw::Plain(text) | Raw::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Puts the value below a path of keys.
    pub(crate) fn under(self, keys: &[String]) -> Self {
        let origin = Arc::clone(&self.origin);
        keys.iter().rev().fold(self, |inner, key| Self::new(Raw::Table(vec![(key.clone(), inner)]), &origin))
    }

    pub(crate) fn from_json(json: &serde_json::Value, origin: &Origin) -> Self {
        use serde_json::Value as Json;
        let raw = match json {
            Json::Null => Raw::Null,
            Json::Bool(flag) => Raw::Bool(*flag),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(whole), _) => Raw::Int(whole.into()),
                (None, Some(whole)) => Raw::Int(whole.into()),
                (None, None) => Raw::Float(number.to_string()),
            },
            Json::String(text) => Raw::Str(text.clone()),
            Json::Array(items) => Raw::List(items.iter().map(|item| Self::from_json(item, origin)).collect()),
            Json::Object(entries) => {
                Raw::Table(entries.iter().map(|(key, value)| (key.clone(), Self::from_json(value, origin))).collect())
            }
        };
        Self::new(raw, origin)
    }
}
