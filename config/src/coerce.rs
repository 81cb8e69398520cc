//! One source against the schema: types, ranges, unknown keys. Never stops at a fault: it notes it and leaves the value out.

mod union;

use std::sync::Arc;

use config::{Map, Value, ValueKind};

use crate::file::{Place, parse_json};
use crate::leaf;
use crate::path::Path;
use crate::problem::Problem;
use crate::raw::{Layer, Origin, Raw, Spot};
use crate::schema::{Field, Id, Kind, Schema};
use crate::suggest;
use crate::vault::Vault;

/// What one layer becomes: a tree in which every value has the type that the schema asks for, secrets replaced by tokens.
pub(crate) struct Coercer<'a> {
    pub(crate) schema: &'a Schema,
    pub(crate) vault: &'a mut Vault,
    pub(crate) problems: &'a mut Vec<Problem>,
    /// Paths of defaults that their own schema refuses: these must be set.
    pub(crate) refused: &'a mut Vec<String>,
    pub(crate) rank: usize,
    /// Built-in defaults are nobody's mistake: what does not fit is left out without a problem.
    pub(crate) defaults: bool,
}

/// The same place in every layer, this one included: a union's tag may be in another one.
type Peers<'a> = Vec<(usize, &'a Spot)>;

impl Coercer<'_> {
    pub(crate) fn layer(&mut self, layer: &Layer, all: &[Layer]) -> Option<Value> {
        let peers = all.iter().map(|layer| (layer.rank, &layer.top)).collect();
        self.value(self.schema.root(), &layer.top, &Path::default(), &peers)
    }

    fn value(&mut self, id: Id, spot: &Spot, path: &Path, peers: &Peers<'_>) -> Option<Value> {
        if self.schema.secret(id) {
            return self.secret(id, spot, path);
        }
        self.open(id, spot, path, peers)
    }

    fn secret(&mut self, id: Id, spot: &Spot, path: &Path) -> Option<Value> {
        if matches!(spot.raw, Raw::Null) && self.schema.nullable(id) {
            return Some(value(ValueKind::Nil, spot));
        }
        if self.defaults {
            // `Serialize` has put `***` there: it would become the secret.
            return None;
        }
        if spot.text() == Some(crate::secret::MASK) {
            let what = "\"***\" stands for a secret and is none";
            self.fault(path, &spot.origin, what.to_owned(), Some("give the secret itself".to_owned()));
            return None;
        }
        let inner = self.open(id, spot, path, &Vec::new())?;
        let token = self.vault.put(crate::settle::plain(&inner));
        Some(value(ValueKind::String(token), spot))
    }

    fn open(&mut self, id: Id, spot: &Spot, path: &Path, peers: &Peers<'_>) -> Option<Value> {
        if matches!(spot.raw, Raw::Null) && self.schema.nullable(id) {
            return Some(value(ValueKind::Nil, spot));
        }
        let schema = self.schema;
        match schema.kind(id) {
            Kind::Struct { fields, rest } => {
                let entries = self.entries(id, spot, path)?;
                Some(self.fields(fields, *rest, entries, spot, path, peers, ""))
            }
            Kind::Map(of) => {
                let entries = self.entries(id, spot, path)?;
                let mut table = Map::new();
                for (key, inner) in entries {
                    if let Some(value) = self.value(*of, inner, &path.key(key), &below(peers, key)) {
                        table.insert(key.clone(), value);
                    }
                }
                Some(value(ValueKind::Table(table), spot))
            }
            Kind::List { of, min, max } => self.list(id, *of, (*min, *max), spot, path),
            Kind::Tuple(of) => self.tuple(id, of, spot, path),
            Kind::Tagged { .. } => self.tagged(id, spot, path, peers),
            Kind::Either(nodes) => self.either(id, nodes, spot, path, peers),
            Kind::Any | Kind::Link(_) => Some(anything(spot)),
            kind => match leaf::fit(kind, &spot.raw) {
                Ok(kind) => Some(value(kind, spot)),
                Err(misfit) => {
                    self.misfit(id, spot, path, misfit.why, misfit.hint);
                    None
                }
            },
        }
    }

    fn entries<'s>(&mut self, id: Id, spot: &'s Spot, path: &Path) -> Option<&'s [(String, Spot)]> {
        match &spot.raw {
            Raw::Table(entries) => Some(entries),
            // `section:` with nothing below it.
            Raw::Null => Some(&[]),
            _ => {
                self.misfit(id, spot, path, "", None);
                None
            }
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one call from a struct and one from a variant; a struct of these would say less"
    )]
    fn fields(
        &mut self,
        fields: &[Field],
        rest: Option<Id>,
        entries: &[(String, Spot)],
        spot: &Spot,
        path: &Path,
        peers: &Peers<'_>,
        elsewhere: &str,
    ) -> Value {
        let mut table: Map<String, Value> = Map::new();
        for (key, inner) in entries {
            let field = fields.iter().find(|field| field.name == *key || field.aliases.contains(key));
            let (name, node) = match (field, rest) {
                (Some(field), _) => (field.name.as_str(), field.node),
                (None, Some(node)) => (key.as_str(), node),
                (None, None) => {
                    self.unknown(fields, key, inner, path, elsewhere);
                    continue;
                }
            };
            let path = path.key(name);
            if name != key && entries.iter().any(|(other, _)| other == name) {
                self.fault(&path, &inner.origin, format!("is given twice, also as {key:?}"), None);
                continue;
            }
            if let Some(value) = self.value(node, inner, &path, &below(peers, key)) {
                table.insert(name.to_owned(), value);
            }
        }
        value(ValueKind::Table(table), spot)
    }

    fn list(&mut self, id: Id, of: Id, bounds: (usize, Option<usize>), spot: &Spot, path: &Path) -> Option<Value> {
        let parsed;
        let items = match &spot.raw {
            Raw::List(items) => items,
            Raw::Text(text) => {
                parsed = items_of(text, &spot.origin);
                &parsed
            }
            _ => {
                let hint = matches!(spot.raw, Raw::Str(_) | Raw::Plain(_)).then(|| "put it in [ ]".to_owned());
                self.misfit(id, spot, path, "", hint);
                return None;
            }
        };
        if items.len() < bounds.0 || bounds.1.is_some_and(|max| items.len() > max) {
            let what = format!("has {} items; expected {}", items.len(), self.schema.expected(id));
            self.fault(path, &spot.origin, what, None);
            return None;
        }
        let mut values = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            if matches!(&item.raw, Raw::Text(text) if text.is_empty()) {
                self.fault(
                    &path.index(index),
                    &item.origin,
                    "is empty".to_owned(),
                    Some("take the extra comma away".to_owned()),
                );
                continue;
            }
            values.push(self.value(of, item, &path.index(index), &Vec::new()));
        }
        // A list with a hole would shift what comes after it.
        let values: Vec<Value> = values.into_iter().collect::<Option<_>>()?;
        (values.len() == items.len()).then(|| value(ValueKind::Array(values), spot))
    }

    fn tuple(&mut self, id: Id, of: &[Id], spot: &Spot, path: &Path) -> Option<Value> {
        let parsed;
        let items = match &spot.raw {
            Raw::List(items) => items,
            Raw::Text(text) => {
                parsed = items_of(text, &spot.origin);
                &parsed
            }
            _ => &Vec::new(),
        };
        if items.len() != of.len() {
            self.misfit(id, spot, path, "", None);
            return None;
        }
        let fitted = items.iter().zip(of).enumerate();
        let values: Vec<_> =
            fitted.map(|(at, (item, id))| self.value(*id, item, &path.index(at), &Vec::new())).collect();
        values.into_iter().collect::<Option<Vec<Value>>>().map(|values| value(ValueKind::Array(values), spot))
    }

    fn unknown(&mut self, fields: &[Field], key: &str, spot: &Spot, path: &Path, elsewhere: &str) {
        let here = path.key(key);
        let sibling = suggest::nearest(key, fields.iter().map(|field| field.name.as_str()));
        let meant = sibling.map(|name| path.key(name).to_string()).or_else(|| {
            // The right key in the wrong table.
            let wanted = format!(".{here}");
            let all = self.schema.known().into_iter().map(|known| Path::of(&known.path).to_string());
            let mut ends = all.filter(|known| known.ends_with(&wanted));
            ends.next().filter(|_| ends.next().is_none())
        });
        let hint = meant.map(|meant| format!("did you mean {meant:?}?"));
        self.fault(&here, &spot.origin, format!("unknown key{elsewhere}"), hint);
    }

    fn misfit(&mut self, id: Id, spot: &Spot, path: &Path, why: &'static str, hint: Option<String>) {
        let hide = self.schema.hides(id);
        let what = if why.is_empty() {
            leaf::describe(&spot.raw, hide)
        } else {
            format!("{} {why}", leaf::show(&spot.raw, hide))
        };
        let table = matches!(self.schema.kind(id), Kind::Struct { .. } | Kind::Map(_) | Kind::Tagged { .. });
        let json = if table && matches!(spot.raw, Raw::Text(_)) { ", written as JSON" } else { "" };
        let expected = format!("{}{json}", self.schema.expected(id));
        self.fault(path, &spot.origin, format!("{what}; expected {expected}"), hint.filter(|_| !hide));
    }

    fn fault(&mut self, path: &Path, origin: &Origin, what: String, hint: Option<String>) {
        if self.defaults {
            self.refused.push(path.to_string());
            return;
        }
        self.problems.push(Problem::new(path, origin, what).hint(hint.unwrap_or_default()));
    }
}

fn below<'a>(peers: &Peers<'a>, key: &str) -> Peers<'a> {
    peers.iter().filter_map(|(rank, spot)| spot.get(key).map(|inner| (*rank, inner))).collect()
}

fn value(kind: ValueKind, spot: &Spot) -> Value {
    Value::new(Some(&spot.origin), kind)
}

/// A list in a variable or a flag: JSON if it can be read as such, else parted at the commas.
fn items_of(text: &str, origin: &Origin) -> Vec<Spot> {
    if text.starts_with('[')
        && let Some(Spot { raw: Raw::List(items), .. }) = json_of(text, origin)
    {
        return items;
    }
    text.split(',').map(|item| Spot::new(Raw::Text(item.trim().to_owned()), origin)).collect()
}

/// A variable or flag that holds JSON; every value in it comes from that variable.
pub(crate) fn json_of(text: &str, origin: &Origin) -> Option<Spot> {
    let mut spot = parse_json(text, &Place("")).ok()?;
    relabel(&mut spot, origin);
    Some(spot)
}

fn relabel(spot: &mut Spot, origin: &Origin) {
    spot.origin = Arc::clone(origin);
    match &mut spot.raw {
        Raw::List(items) => items.iter_mut().for_each(|item| relabel(item, origin)),
        Raw::Table(entries) => entries.iter_mut().for_each(|(_, inner)| relabel(inner, origin)),
        _ => {}
    }
}

/// A value where the schema asks for nothing: taken as it is.
fn anything(spot: &Spot) -> Value {
    let kind = match &spot.raw {
        Raw::Null => ValueKind::Nil,
        Raw::Bool(flag) => ValueKind::Boolean(*flag),
        Raw::Int(number) => leaf::number_kind(*number),
        Raw::Str(text) => ValueKind::String(text.clone()),
        Raw::Float(text) | Raw::Plain(text) => leaf::guess(text),
        Raw::Text(text) => match json_of(text, &spot.origin) {
            Some(parsed) => return anything(&parsed),
            None => ValueKind::String(text.clone()),
        },
        Raw::List(items) => ValueKind::Array(items.iter().map(anything).collect()),
        Raw::Table(entries) => {
            ValueKind::Table(entries.iter().map(|(key, inner)| (key.clone(), anything(inner))).collect())
        }
    };
    value(kind, spot)
}
