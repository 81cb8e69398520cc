use crate::schema::{Field, Id, Kind, Schema};
use crate::suggest::folded;

/// A key that a name turned out to mean.
pub(crate) struct Found {
    pub(crate) path: Vec<String>,
    pub(crate) node: Id,
}

/// Looks up the name of a variable, parted at `__`. Fields are compared without case, `_` and `-`; the keys of a map are
/// taken as they are, and those of a map of plain values may hold `__` themselves: there is nothing below to part.
pub(crate) fn find(schema: &Schema, parts: &[String]) -> Option<Found> {
    let mut path = Vec::new();
    let node = walk(schema, schema.root(), parts, &mut path, 0)?;
    Some(Found { path, node })
}

/// Looks up a dotted key, by the same rules but for the last: a key that holds dots is in quotes.
pub(crate) fn find_key(schema: &Schema, keys: &[String]) -> Option<Found> {
    find(schema, keys).filter(|found| found.path.len() == keys.len())
}

fn walk(schema: &Schema, id: Id, parts: &[String], path: &mut Vec<String>, depth: usize) -> Option<Id> {
    let Some((part, rest)) = parts.split_first() else { return Some(id) };
    // Unions nest without using up a part.
    if part.is_empty() || depth > 64 {
        return None;
    }
    match schema.kind(id) {
        Kind::Struct { fields, rest: open } => {
            if let Some(field) = pick(fields, part) {
                path.push(field.name.clone());
                return walk(schema, field.node, rest, path, depth + 1);
            }
            into_map(schema, (*open)?, parts, path, depth)
        }
        Kind::Map(of) => into_map(schema, *of, parts, path, depth),
        Kind::Tagged { variants, .. } => {
            let mut nodes = variants.iter().map(|(_, node)| *node);
            nodes.find_map(|node| attempt(schema, node, parts, path, depth))
        }
        Kind::Either(nodes) => nodes.iter().find_map(|node| attempt(schema, *node, parts, path, depth)),
        _ => None,
    }
}

fn attempt(schema: &Schema, id: Id, parts: &[String], path: &mut Vec<String>, depth: usize) -> Option<Id> {
    let length = path.len();
    let found = walk(schema, id, parts, path, depth + 1);
    if found.is_none() {
        path.truncate(length);
    }
    found
}

fn into_map(schema: &Schema, of: Id, parts: &[String], path: &mut Vec<String>, depth: usize) -> Option<Id> {
    let nested = matches!(schema.kind(of), Kind::Struct { .. } | Kind::Map(_) | Kind::Tagged { .. } | Kind::Either(_));
    if nested {
        path.push(parts[0].clone());
        return walk(schema, of, &parts[1..], path, depth + 1);
    }
    path.push(parts.join("__"));
    Some(of)
}

fn pick<'a>(fields: &'a [Field], part: &str) -> Option<&'a Field> {
    let names = |field: &'a Field| std::iter::once(&field.name).chain(&field.aliases);
    let exact = fields.iter().find(|field| names(field).any(|name| name.eq_ignore_ascii_case(part)));
    exact.or_else(|| {
        let wanted = folded(part);
        fields.iter().find(|field| names(field).any(|name| folded(name) == wanted))
    })
}
