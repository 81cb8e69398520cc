//! Schemas as JSON objects: put together, taken apart, looked into.

use serde_json::{Map, Value as Json};

pub(super) type Object = Map<String, Json>;

/// What, beside a `$ref`, changes the shape of what is referred to.
pub(super) const SHAPING: [&str; 18] = [
    "properties",
    "additionalProperties",
    "required",
    "oneOf",
    "anyOf",
    "allOf",
    "items",
    "x-format",
    "x-words",
    "enum",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
];

/// The schema without `null`, if `null` was one of what it allows.
pub(super) fn without_null(object: &Object) -> Option<Object> {
    let is_null = |part: &Json| part.get("type") == Some(&"null".into()) || part.get("const") == Some(&Json::Null);
    for key in ["anyOf", "oneOf"] {
        if let Some(Json::Array(parts)) = object.get(key)
            && parts.iter().any(is_null)
        {
            let rest: Vec<&Json> = parts.iter().filter(|part| !is_null(part)).collect();
            let outer = without(object, key);
            return Some(match rest[..] {
                [Json::Object(one)] => merged(one, &outer),
                _ => merged(&outer, &Map::from_iter([(key.to_owned(), rest.into_iter().cloned().collect())])),
            });
        }
    }
    let (key, null) = match (object.get("type"), object.get("enum")) {
        (Some(Json::Array(types)), _) if types.contains(&"null".into()) => ("type", Json::from("null")),
        (_, Some(Json::Array(values))) if values.contains(&Json::Null) => ("enum", Json::Null),
        _ => return None,
    };
    let mut rest = object.clone();
    for (key, null) in [(key, null), ("enum", Json::Null)] {
        if let Some(Json::Array(items)) = rest.get_mut(key) {
            items.retain(|item| *item != null);
            if key == "type" && items.len() == 1 {
                let only = items.remove(0);
                rest.insert(key.to_owned(), only);
            }
        }
    }
    Some(rest)
}

/// `over` wins, but properties and requirements add up.
pub(super) fn merged(base: &Object, over: &Object) -> Object {
    let mut whole = base.clone();
    for (key, value) in over {
        match (whole.get_mut(key), value) {
            (Some(Json::Object(mine)), Json::Object(theirs)) if key == "properties" => {
                mine.extend(theirs.iter().map(own));
            }
            (Some(Json::Array(mine)), Json::Array(theirs)) if key == "required" => mine.extend(theirs.iter().cloned()),
            _ => {
                whole.insert(key.clone(), value.clone());
            }
        }
    }
    whole
}

pub(super) fn without(object: &Object, key: &str) -> Object {
    object.iter().filter(|(name, _)| *name != key).map(own).collect()
}

pub(super) fn own((key, value): (&String, &Json)) -> (String, Json) {
    (key.clone(), value.clone())
}

pub(super) fn properties(object: &Object) -> impl Iterator<Item = (&String, &Json)> {
    object.get("properties").and_then(Json::as_object).into_iter().flatten()
}

/// The texts a schema allows, if it allows nothing else.
pub(super) fn choices(schema: &Json) -> Option<Vec<String>> {
    if let Some(Json::String(only)) = schema.get("const") {
        return Some(vec![only.clone()]);
    }
    schema.get("enum")?.as_array()?.iter().map(|choice| choice.as_str().map(str::to_owned)).collect()
}

/// The property that is a different constant in every variant.
pub(super) fn tag_of(variants: &[Object]) -> Option<String> {
    let (first, _) = properties(variants.first()?).find(|(name, _)| {
        variants.iter().all(|variant| {
            let required = variant.get("required").and_then(Json::as_array);
            constant(variant, name).is_some() && required.is_some_and(|list| list.contains(&name.as_str().into()))
        })
    })?;
    Some(first.clone())
}

pub(super) fn constant(variant: &Object, name: &str) -> Option<String> {
    variant.get("properties")?.get(name)?.get("const")?.as_str().map(str::to_owned)
}

pub(super) fn length(object: &Object, key: &str) -> Option<usize> {
    usize::try_from(object.get(key)?.as_u64()?).ok()
}
