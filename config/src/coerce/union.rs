//! Values that may be one of several: enums with a tag, and those without.

use config::{Value, ValueKind};

use super::{Coercer, Peers, anything};
use crate::leaf;
use crate::path::Path;
use crate::raw::{Raw, Spot};
use crate::schema::{Field, Id, Kind};
use crate::suggest;

impl Coercer<'_> {
    pub(super) fn tagged(&mut self, id: Id, spot: &Spot, path: &Path, peers: &Peers<'_>) -> Option<Value> {
        let schema = self.schema;
        let Kind::Tagged { tag, variants, shared } = schema.kind(id) else { return None };
        let entries = self.entries(id, spot, path)?;
        let known = |spot: &Spot| {
            let name = spot.get(tag)?.text()?;
            variants.iter().find(|(variant, _)| variant == name)
        };
        if let Some(own) = spot.get(tag)
            && known(spot).is_none()
        {
            let names: Vec<&str> = variants.iter().map(|(name, _)| name.as_str()).collect();
            let meant = own.text().and_then(|text| suggest::nearest(text, names.iter().copied()));
            let shown = leaf::show(&own.raw, false);
            let what = format!("{shown} is not known; expected one of {}", names.join(", "));
            self.fault(&path.key(tag), &own.origin, what, meant.map(|meant| format!("did you mean {meant:?}?")));
            return None;
        }
        let here = Vec::from([(self.rank, spot)]);
        let peers = if peers.is_empty() { &here } else { peers };
        let chosen = |most: usize| {
            let within = peers.iter().filter(|(rank, _)| *rank <= most);
            within.filter_map(|(rank, spot)| known(spot).map(|found| (*rank, found))).max_by_key(|(rank, _)| *rank)
        };
        let (standing, last) = (chosen(self.rank), chosen(usize::MAX));
        let Some((_, (name, node))) = standing.or(last) else {
            return Some(self.untold(variants, entries, spot, path, peers));
        };
        let Kind::Struct { fields, rest } = self.schema.kind(*node) else { return Some(anything(spot)) };
        let mut value = self.fields(fields, *rest, entries, spot, path, peers, &format!(" for {tag} = {name:?}"));
        // A layer above has changed the tag: it starts afresh, and what stands here belongs to another variant.
        let overruled = standing.zip(last).is_some_and(|((_, mine), (_, theirs))| mine.0 != theirs.0);
        if let (true, ValueKind::Table(table)) = (overruled, &mut value.kind) {
            table.retain(|key, _| shared.contains(key));
        }
        Some(value)
    }

    /// No layer says which variant it is: each key is read as the first variant that has it would.
    fn untold(
        &mut self,
        variants: &[(String, Id)],
        entries: &[(String, Spot)],
        spot: &Spot,
        path: &Path,
        peers: &Peers<'_>,
    ) -> Value {
        let mut all: Vec<Field> = Vec::new();
        for (_, node) in variants {
            if let Kind::Struct { fields, .. } = self.schema.kind(*node) {
                all.extend(
                    fields
                        .iter()
                        .filter(|field| !all.iter().any(|seen| seen.name == field.name))
                        .cloned()
                        .collect::<Vec<_>>(),
                );
            }
        }
        self.fields(&all, None, entries, spot, path, peers, "")
    }

    pub(super) fn either(
        &mut self,
        id: Id,
        nodes: &[Id],
        spot: &Spot,
        path: &Path,
        peers: &Peers<'_>,
    ) -> Option<Value> {
        let (problems, refused) = (self.problems.len(), self.refused.len());
        for node in nodes {
            let fitted = self.value(*node, spot, path, peers);
            if fitted.is_some() && self.problems.len() == problems && self.refused.len() == refused {
                return fitted;
            }
            self.problems.truncate(problems);
            self.refused.truncate(refused);
        }
        // If only one of them is meant to look like this at all, its own words say best what is wrong.
        let meant = |strict: bool| {
            let mut fitting = nodes.iter().filter(|node| looks_like(self.schema.kind(**node), &spot.raw, strict));
            fitting.next().filter(|_| fitting.next().is_none())
        };
        match meant(true).or_else(|| meant(false)) {
            Some(only) => self.value(*only, spot, path, peers),
            None => {
                self.misfit(id, spot, path, "", None);
                None
            }
        }
    }
}

/// Strictly, a table looks like a struct that has at least one of its keys.
fn looks_like(kind: &Kind, raw: &Raw, strict: bool) -> bool {
    match (kind, raw) {
        (Kind::Struct { fields, .. }, Raw::Table(entries)) => {
            !strict || entries.iter().any(|(key, _)| fields.iter().any(|field| field.name == *key))
        }
        (Kind::Map(_) | Kind::Tagged { .. }, Raw::Table(_))
        | (Kind::List { .. } | Kind::Tuple(_), Raw::List(_))
        | (Kind::Bool, Raw::Bool(_))
        | (Kind::Int { .. }, Raw::Int(_))
        | (Kind::Float { .. }, Raw::Int(_) | Raw::Float(_))
        | (Kind::Text(_), Raw::Str(_) | Raw::Plain(_) | Raw::Text(_))
        | (Kind::Either(_) | Kind::Any | Kind::Link(_), _) => true,
        _ => false,
    }
}
