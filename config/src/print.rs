//! `--print-config`: every key, its value and where it came from, in a form that is valid TOML.

use std::fmt::Write;

use serde_json::Value as Json;

use crate::path::Path;
use crate::raw::DEFAULT;
use crate::redact::redact_text;
use crate::schema::{Id, Kind, Schema};
use crate::secret::MASK;
use crate::settle::Settled;

/// Prints the configuration. `masked` is what was merged, without secrets; `effective` is the finished value, which also
/// has what only its type knew.
pub(crate) fn print(schema: &Schema, settled: &Settled, masked: &Json, effective: &Json) -> String {
    let mut printer = Printer { schema, settled, out: String::new() };
    printer.value(schema.root(), Some(masked), Some(effective), &Path::default());
    printer.out
}

struct Printer<'a> {
    schema: &'a Schema,
    settled: &'a Settled,
    out: String,
}

impl Printer<'_> {
    fn value(&mut self, id: Id, merged: Option<&Json>, effective: Option<&Json>, path: &Path) {
        let any = merged.filter(|json| !json.is_null()).or(effective);
        if self.schema.secret(id) {
            let set = any.is_some_and(|json| !json.is_null());
            return self.line(path, set.then(|| Json::from(MASK)).as_ref());
        }
        let schema = self.schema;
        match (schema.kind(id), any) {
            (Kind::Struct { fields, rest }, Some(Json::Object(entries))) => {
                for field in fields {
                    let inner = |json: Option<&'_ Json>| json.and_then(|json| json.get(&field.name)).cloned();
                    let (merged, effective) = (inner(merged), inner(effective));
                    self.value(field.node, merged.as_ref(), effective.as_ref(), &path.key(&field.name));
                }
                let others = entries.keys().filter(|key| !fields.iter().any(|field| field.name == **key));
                if let Some(rest) = rest {
                    for key in others {
                        self.child(*rest, key, merged, effective, path);
                    }
                }
            }
            (Kind::Tagged { tag, variants, .. }, Some(json)) => {
                let name = json.get(tag).and_then(Json::as_str);
                match variants.iter().find(|(variant, _)| Some(variant.as_str()) == name) {
                    Some((_, node)) => self.value(*node, merged, effective, path),
                    None => self.line(path, any),
                }
            }
            (Kind::Map(of), Some(Json::Object(entries))) if !entries.is_empty() => {
                for key in entries.keys() {
                    self.child(*of, key, merged, effective, path);
                }
            }
            _ => self.line(path, any),
        }
    }

    fn child(&mut self, id: Id, key: &str, merged: Option<&Json>, effective: Option<&Json>, path: &Path) {
        let inner = |json: Option<&Json>| json.and_then(|json| json.get(key)).cloned();
        let (merged, effective) = (inner(merged), inner(effective));
        self.value(id, merged.as_ref(), effective.as_ref(), &path.key(key));
    }

    fn line(&mut self, path: &Path, json: Option<&Json>) {
        let origin = self.settled.origins.get(&path.to_string()).cloned();
        let origin = origin.unwrap_or_else(|| match json {
            Some(Json::Object(entries)) if !entries.is_empty() => self.settled.origin(path),
            _ => DEFAULT.to_owned(),
        });
        let origin: String =
            origin.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect();
        // TOML has no null: a key without a value is a comment.
        let _ = match json {
            None | Some(Json::Null) => writeln!(self.out, "# {path} is not set   # {origin}"),
            Some(json) => writeln!(self.out, "{path} = {}   # {origin}", toml(json)),
        };
    }
}

/// A value on one line.
fn toml(json: &Json) -> String {
    match json {
        Json::Null => "\"\"".to_owned(),
        Json::Array(items) => {
            let items: Vec<String> = items.iter().map(toml).collect();
            format!("[{}]", items.join(", "))
        }
        Json::Object(entries) => {
            let entry = |(key, value): (&String, &Json)| format!("{} = {}", Path::default().key(key), toml(value));
            let entries: Vec<String> = entries.iter().filter(|(_, value)| !value.is_null()).map(entry).collect();
            if entries.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", entries.join(", ")) }
        }
        // JSON's escapes are TOML's, but for one character that JSON leaves alone.
        Json::String(text) => Json::from(redact_text(text)).to_string().replace('\u{7f}', "\\u007f"),
        Json::Number(_) | Json::Bool(_) => json.to_string(),
    }
}
