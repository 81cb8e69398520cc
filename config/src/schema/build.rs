use std::collections::HashMap;

use serde_json::{Map, Value as Json};

use super::object::{
    Object, SHAPING, choices, constant, length, merged, own, properties, tag_of, without, without_null,
};
use super::{Field, Format, Id, Kind, Names, Node, Text};

pub(super) fn arena(schema: &Json) -> (Vec<Node>, Id) {
    let mut builder = Builder { schema, nodes: vec![Node::default()], seen: HashMap::from([("#".to_owned(), 0)]) };
    let built = builder.build(schema);
    builder.nodes[0].kind = Kind::Link(built);
    (builder.nodes, 0)
}

struct Builder<'a> {
    schema: &'a Json,
    nodes: Vec<Node>,
    /// References met so far: one that is met again, also inside itself, gets the same node.
    seen: HashMap<String, Id>,
}

impl Builder<'_> {
    fn build(&mut self, schema: &Json) -> Id {
        let Json::Object(object) = schema else { return self.push(Node::default()) };
        match object.get("$ref").and_then(Json::as_str) {
            Some(reference) if object.keys().any(|key| SHAPING.contains(&key.as_str())) => {
                let mut beside = object.clone();
                beside.remove("$ref");
                let merged = merged(&self.resolve(reference), &beside);
                self.build(&Json::Object(merged))
            }
            Some(reference) => {
                let target = self.refer(reference);
                self.node(object, Kind::Link(target))
            }
            None => self.shape(object),
        }
    }

    fn refer(&mut self, reference: &str) -> Id {
        if let Some(id) = self.seen.get(reference) {
            return *id;
        }
        let id = self.push(Node::default());
        self.seen.insert(reference.to_owned(), id);
        let built = self.build(&Json::Object(self.resolve(reference)));
        self.nodes[id].kind = Kind::Link(built);
        id
    }

    fn resolve(&self, reference: &str) -> Object {
        let found = reference.strip_prefix('#').and_then(|pointer| self.schema.pointer(pointer));
        found.and_then(Json::as_object).cloned().unwrap_or_default()
    }

    fn shape(&mut self, object: &Object) -> Id {
        if let Some(rest) = without_null(object) {
            let id = self.build(&Json::Object(rest));
            self.nodes[id].nullable = true;
            return id;
        }
        if let Some(Json::Array(parts)) = object.get("allOf") {
            return self.together(without(object, "allOf"), parts);
        }
        for key in ["oneOf", "anyOf"] {
            if let Some(Json::Array(parts)) = object.get(key) {
                return self.union(&without(object, key), parts);
            }
        }
        let kind = self.kind(object);
        self.node(object, kind)
    }

    /// Parts that hold all at once. Two unions among them are two flattened enums.
    fn together(&mut self, mut whole: Object, parts: &[Json]) -> Id {
        let mut unions: Vec<Vec<Json>> = Vec::new();
        for mut part in parts.iter().filter_map(|part| self.plain(part)) {
            for key in ["oneOf", "anyOf"] {
                if let Some(Json::Array(alternatives)) = part.remove(key) {
                    unions.push(alternatives);
                }
            }
            whole = merged(&part, &whole);
        }
        match &unions[..] {
            [] => self.build(&Json::Object(whole)),
            [one] => self.union(&whole, one),
            _ => {
                let parts: Vec<Object> = unions.concat().iter().filter_map(|part| self.plain(part)).collect();
                self.flattened(&whole, &parts)
            }
        }
    }

    fn union(&mut self, outer: &Object, parts: &[Json]) -> Id {
        if let Some(choices) = parts.iter().map(choices).collect::<Option<Vec<_>>>() {
            let text = Text { choices: choices.concat(), ..Text::default() };
            return self.node(outer, Kind::Text(text));
        }
        let plain: Option<Vec<Object>> = parts.iter().map(|part| self.plain(part)).collect();
        let shape: Object = outer.iter().filter(|(key, _)| SHAPING.contains(&key.as_str())).map(own).collect();
        if let Some(plain) = &plain
            && let Some(tag) = tag_of(plain)
        {
            let mut variants = Vec::new();
            for part in plain {
                let name = constant(part, &tag).unwrap_or_default();
                variants.push((name, self.build(&Json::Object(merged(&shape, part)))));
            }
            let shared = properties(outer).map(|(name, _)| name.clone()).collect();
            return self.node(outer, Kind::Tagged { tag, variants, shared });
        }
        if outer.contains_key("properties") {
            return self.flattened(outer, &plain.unwrap_or_default());
        }
        let ids = parts.iter().map(|part| self.build(part)).collect();
        self.node(outer, Kind::Either(ids))
    }

    /// An enum without a tag, flattened into a struct: any of its keys may be there, and serde decides.
    fn flattened(&mut self, outer: &Object, parts: &[Object]) -> Id {
        let mut by_name: Vec<(&String, Vec<Json>)> = Vec::new();
        for (name, schema) in parts.iter().flat_map(properties) {
            match by_name.iter_mut().find(|(known, _)| *known == name) {
                Some((_, schemas)) if schemas.contains(schema) => {}
                Some((_, schemas)) => schemas.push(schema.clone()),
                None => by_name.push((name, vec![schema.clone()])),
            }
        }
        let (mut fields, rest) = self.fields(outer);
        for (name, schemas) in by_name {
            let node = match &schemas[..] {
                [one] => self.build(one),
                _ => self.union(&Map::new(), &schemas),
            };
            fields.push(Field { name: name.clone(), node, required: false, aliases: Vec::new() });
        }
        self.node(outer, Kind::Struct { fields, rest })
    }

    fn kind(&mut self, object: &Object) -> Kind {
        if let Some(format) = object.get("x-format").map(format)
            && let Some(format) = format
        {
            return Kind::Text(Text { format: Some(format), ..text(object) });
        }
        if object.contains_key("const") || object.contains_key("enum") {
            return choices(&Json::Object(object.clone()))
                .map_or(Kind::Any, |choices| Kind::Text(Text { choices, ..Text::default() }));
        }
        let types = match object.get("type") {
            Some(Json::Array(types)) => types.iter().filter_map(Json::as_str).collect(),
            Some(Json::String(name)) => vec![name.as_str()],
            _ if object.contains_key("properties") => vec!["object"],
            _ => Vec::new(),
        };
        match types[..] {
            ["object"] => self.object(object),
            ["array"] => self.array(object),
            ["boolean"] => Kind::Bool,
            ["integer"] => int(object),
            ["number"] => float(object),
            ["string"] => Kind::Text(text(object)),
            [] | [_] => Kind::Any,
            _ => {
                let one = |name: &&str| merged(object, &Map::from_iter([("type".to_owned(), Json::from(*name))]));
                let schemas: Vec<Object> = types.iter().map(one).collect();
                Kind::Either(schemas.into_iter().map(|schema| self.build(&Json::Object(schema))).collect())
            }
        }
    }

    fn object(&mut self, object: &Object) -> Kind {
        if !object.contains_key("properties") {
            let values = match (object.get("additionalProperties"), object.get("patternProperties")) {
                (_, Some(Json::Object(patterns))) => patterns.values().next().cloned(),
                (Some(Json::Bool(false)) | None, _) => None,
                (Some(values), _) => Some(values.clone()),
            };
            if let Some(values) = values {
                return Kind::Map(self.build(&values));
            }
        }
        let (fields, rest) = self.fields(object);
        Kind::Struct { fields, rest }
    }

    fn fields(&mut self, object: &Object) -> (Vec<Field>, Option<Id>) {
        let required: Vec<&str> =
            object.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect();
        let mut fields = Vec::new();
        for (name, schema) in properties(object) {
            let aliases = schema.get("x-alias").and_then(Json::as_array).into_iter().flatten();
            fields.push(Field {
                name: name.clone(),
                node: self.build(schema),
                required: required.contains(&name.as_str()),
                aliases: aliases.filter_map(Json::as_str).map(str::to_owned).collect(),
            });
        }
        let rest = match object.get("additionalProperties") {
            None | Some(Json::Bool(false)) => None,
            Some(schema) => Some(self.build(schema)),
        };
        (fields, rest)
    }

    fn array(&mut self, object: &Object) -> Kind {
        if let Some(Json::Array(items)) = object.get("prefixItems") {
            return Kind::Tuple(items.iter().map(|item| self.build(item)).collect());
        }
        let of = self.build(object.get("items").unwrap_or(&Json::Bool(true)));
        Kind::List { of, min: length(object, "minItems").unwrap_or(0), max: length(object, "maxItems") }
    }

    /// The schema with its own reference put in, so that its properties can be seen.
    fn plain(&self, schema: &Json) -> Option<Object> {
        let object = schema.as_object()?;
        Some(match object.get("$ref").and_then(Json::as_str) {
            Some(reference) => merged(&self.resolve(reference), &without(object, "$ref")),
            None => object.clone(),
        })
    }

    fn node(&mut self, object: &Object, kind: Kind) -> Id {
        self.push(Node {
            kind,
            secret: object.get("x-secret") == Some(&Json::Bool(true)),
            section: object.get("x-section").and_then(Json::as_str).map(str::to_owned),
            names: Names::of(object),
            ..Node::default()
        })
    }

    fn push(&mut self, node: Node) -> Id {
        self.nodes.push(node);
        self.nodes.len() - 1
    }
}

fn format(name: &Json) -> Option<Format> {
    Some(match name.as_str().expect("x-format is a text") {
        "duration" => Format::Duration,
        "byte-size" => Format::ByteSize,
        "socket-addr" => Format::SocketAddr,
        _ => return None,
    })
}

fn text(object: &Object) -> Text {
    let words = object.get("x-words").map(|words| words.as_array().expect("x-words is a list"));
    Text {
        format: None,
        words: words.into_iter().flatten().filter_map(Json::as_str).map(str::to_owned).collect(),
        choices: Vec::new(),
        min: length(object, "minLength").unwrap_or(0),
        max: length(object, "maxLength"),
        example: object.get("examples").and_then(|examples| examples.get(0)?.as_str()).map(str::to_owned),
    }
}

fn int(object: &Object) -> Kind {
    let bits = object.get("format").and_then(Json::as_str).unwrap_or_default();
    let (low, high): (i128, i128) = match bits {
        "uint8" => (0, u8::MAX.into()),
        "uint16" => (0, u16::MAX.into()),
        "uint32" => (0, u32::MAX.into()),
        "uint64" | "uint" | "uint128" => (0, u64::MAX.into()),
        "int8" => (i8::MIN.into(), i8::MAX.into()),
        "int16" => (i16::MIN.into(), i16::MAX.into()),
        "int32" => (i32::MIN.into(), i32::MAX.into()),
        "int64" | "int" => (i64::MIN.into(), i64::MAX.into()),
        _ => (i64::MIN.into(), u64::MAX.into()),
    };
    let bound = |key: &str| object.get(key).and_then(Json::as_f64).map(|bound| (bound, object.get(key)));
    let whole = |key: &str| bound(key).map(|(near, exact)| exact.and_then(exactly).unwrap_or(near as i128));
    let above = whole("exclusiveMinimum").map(|bound| bound + 1);
    let below = whole("exclusiveMaximum").map(|bound| bound - 1);
    Kind::Int {
        min: [whole("minimum"), above].into_iter().flatten().fold(low, i128::max),
        max: [whole("maximum"), below].into_iter().flatten().fold(high, i128::min),
    }
}

fn exactly(number: &Json) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

fn float(object: &Object) -> Kind {
    let bound = |key: &str| object.get(key).and_then(Json::as_f64);
    let min = [bound("minimum"), bound("exclusiveMinimum").map(f64::next_up)];
    let max = [bound("maximum"), bound("exclusiveMaximum").map(f64::next_down)];
    Kind::Float {
        min: min.into_iter().flatten().fold(f64::NEG_INFINITY, f64::max),
        max: max.into_iter().flatten().fold(f64::INFINITY, f64::min),
    }
}
