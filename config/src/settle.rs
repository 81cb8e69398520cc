//! The merged tree against the schema: what must be set and is not, where each value came from, where sections stand.

use std::collections::BTreeMap;

use config::{Value, ValueKind};
use serde_json::{Map, Value as Json};

use crate::path::Path;
use crate::raw::DEFAULT;
use crate::schema::{Id, Kind, Schema};

#[derive(Default)]
pub(crate) struct Settled {
    /// Secrets are tokens here.
    pub(crate) json: Json,
    /// By path as it is shown; leaves and lists.
    pub(crate) origins: BTreeMap<String, String>,
    /// The same keys, as paths.
    pub(crate) leaves: Vec<Path>,
    /// Those that say which variant a union is.
    pub(crate) tags: Vec<Path>,
    /// Where each named section stands.
    pub(crate) sections: Vec<(String, Path)>,
    /// Keys that must be set and are not.
    pub(crate) unset: Vec<Unset>,
}

pub(crate) struct Unset {
    pub(crate) path: Path,
    pub(crate) source: String,
    pub(crate) expected: String,
    pub(crate) secret: bool,
}

impl Settled {
    pub(crate) fn of(schema: &Schema, merged: &Value, refused: &[String]) -> Self {
        let mut walk = Walk { schema, refused, settled: Self::default() };
        let json = walk.value(schema.root(), merged, &Path::default());
        Self { json, ..walk.settled }
    }

    /// The origin of a key, or of the first key below it, or of what it stands in.
    pub(crate) fn origin(&self, path: &Path) -> String {
        let mut at = Some(path.clone());
        while let Some(path) = at {
            let key = path.to_string();
            if let Some(origin) = self.origins.get(&key) {
                return origin.clone();
            }
            let below = self.origins.iter().find(|(known, origin)| {
                *origin != DEFAULT && known.strip_prefix(&key).is_some_and(|rest| rest.starts_with(['.', '[']))
            });
            if let Some((_, origin)) = below {
                return origin.clone();
            }
            at = path.parent();
        }
        DEFAULT.to_owned()
    }

    /// The values that a section may be read from: what stands there and, where that is a variant of a union, the same
    /// without the tag, which is not the section's own.
    pub(crate) fn section(&self, place: &Path, json: &Json) -> Vec<Json> {
        let Some(whole) = place.get(json) else { return Vec::new() };
        let mut candidates = vec![whole.clone()];
        for tag in self.tags.iter().filter(|tag| tag.parent().as_ref() == Some(place)) {
            let mut without = json.clone();
            tag.set(&mut without, None);
            candidates.extend(place.get(&without).cloned());
        }
        candidates
    }
}

/// The value as JSON, tokens and all.
pub(crate) fn plain(value: &Value) -> Json {
    match &value.kind {
        ValueKind::Nil => Json::Null,
        ValueKind::Boolean(flag) => Json::from(*flag),
        ValueKind::I64(number) => Json::from(*number),
        ValueKind::U64(number) => Json::from(*number),
        ValueKind::I128(number) => Json::from(*number as f64),
        ValueKind::U128(number) => Json::from(*number as f64),
        ValueKind::Float(number) => Json::from(*number),
        ValueKind::String(text) => Json::from(text.as_str()),
        ValueKind::Array(items) => items.iter().map(plain).collect(),
        ValueKind::Table(table) => table.iter().map(|(key, inner)| (key.clone(), plain(inner))).collect(),
    }
}

struct Walk<'a> {
    schema: &'a Schema,
    refused: &'a [String],
    settled: Settled,
}

impl Walk<'_> {
    fn value(&mut self, id: Id, value: &Value, path: &Path) -> Json {
        if self.schema.secret(id) || matches!(value.kind, ValueKind::Nil) {
            self.origin(value, path);
            return plain(value);
        }
        if let Some(name) = self.schema.section(id) {
            self.settled.sections.push((name.to_owned(), path.clone()));
        }
        let schema = self.schema;
        match (schema.kind(id), &value.kind) {
            (Kind::Struct { fields, rest }, ValueKind::Table(table)) => {
                let mut entries = Map::new();
                for field in fields {
                    let path = path.key(&field.name);
                    match table.get(&field.name) {
                        Some(inner) => {
                            let json = self.value(field.node, inner, &path);
                            entries.insert(field.name.clone(), json);
                        }
                        None if field.required || self.refused.contains(&path.to_string()) => {
                            self.unset(field.node, value, &path);
                        }
                        None => {}
                    }
                }
                for (key, inner) in table {
                    if let (Some(rest), false) = (rest, entries.contains_key(key)) {
                        let json = self.value(*rest, inner, &path.key(key));
                        entries.insert(key.clone(), json);
                    }
                }
                Json::Object(entries)
            }
            (Kind::Tagged { tag, variants, .. }, ValueKind::Table(table)) => {
                self.settled.tags.push(path.key(tag));
                let name = table.get(tag).and_then(|value| value.clone().into_string().ok());
                match variants.iter().find(|(variant, _)| Some(variant) == name.as_ref()) {
                    Some((_, node)) => self.value(*node, value, path),
                    None => {
                        if let Some((_, node)) = variants.first() {
                            self.unset(*node, value, &path.key(tag));
                            let names: Vec<&str> = variants.iter().map(|(name, _)| name.as_str()).collect();
                            if let Some(unset) = self.settled.unset.last_mut() {
                                unset.expected = format!("one of {}", names.join(", "));
                            }
                        }
                        self.loose(value, path)
                    }
                }
            }
            (Kind::Map(of), ValueKind::Table(table)) => {
                if table.is_empty() {
                    self.origin(value, path);
                }
                table.iter().map(|(key, inner)| (key.clone(), self.value(*of, inner, &path.key(key)))).collect()
            }
            (Kind::List { of, .. }, ValueKind::Array(items)) => {
                self.origin(value, path);
                let settle = |(index, item)| self.value(*of, item, &path.index(index));
                items.iter().enumerate().map(settle).collect()
            }
            _ => self.loose(value, path),
        }
    }

    /// A part whose shape the schema leaves open.
    fn loose(&mut self, value: &Value, path: &Path) -> Json {
        match &value.kind {
            ValueKind::Table(table) if !table.is_empty() => {
                table.iter().map(|(key, inner)| (key.clone(), self.loose(inner, &path.key(key)))).collect()
            }
            _ => {
                self.origin(value, path);
                plain(value)
            }
        }
    }

    fn origin(&mut self, value: &Value, path: &Path) {
        let origin = value.origin().unwrap_or(DEFAULT);
        self.settled.origins.insert(path.to_string(), origin.to_owned());
        self.settled.leaves.push(path.clone());
    }

    fn unset(&mut self, id: Id, table: &Value, path: &Path) {
        // A table's own origin is lost in the merge: a value in it tells where the author has been. At the top that is
        // a file at most: a variable there may be about anything.
        let is_file = |origin: &str| !origin.starts_with("env ") && !origin.starts_with("flag ");
        let tells = |origin: &str| origin != DEFAULT && (path.len() > 1 || is_file(origin));
        let beside = first_origin(table, &tells).unwrap_or_else(|| "not set".to_owned());
        self.settled.unset.push(Unset {
            path: path.clone(),
            source: beside,
            expected: self.schema.expected(id),
            secret: self.schema.secret(id),
        });
    }
}

fn first_origin(value: &Value, tells: &dyn Fn(&str) -> bool) -> Option<String> {
    match &value.kind {
        ValueKind::Table(table) => {
            let mut origins: Vec<String> = table.values().filter_map(|inner| first_origin(inner, tells)).collect();
            origins.sort();
            origins.into_iter().next()
        }
        ValueKind::Array(items) => items.iter().find_map(|item| first_origin(item, tells)),
        _ => value.origin().filter(|origin| tells(origin)).map(str::to_owned),
    }
}
