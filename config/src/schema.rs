//! The user's own JSON Schema, as a tree that the other steps can walk.

mod build;
mod expected;
mod names;
mod object;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value as Json;

pub(crate) use names::{Alias, Names};

/// A node's place in the arena. Recursive types make cycles, so children are numbers and not boxes.
pub(crate) type Id = usize;

pub(crate) struct Schema {
    nodes: Vec<Node>,
    root: Id,
}

#[derive(Default)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) nullable: bool,
    pub(crate) secret: bool,
    pub(crate) section: Option<String>,
    pub(crate) names: Names,
    /// This node or one below it is secret: a value given for it is never shown, whatever its shape.
    hides: bool,
}

#[derive(Default)]
pub(crate) enum Kind {
    /// The same as another node; this one adds names, or that it is secret.
    Link(Id),
    Struct {
        fields: Vec<Field>,
        /// What a flattened map takes; without one, an unknown key is a fault.
        rest: Option<Id>,
    },
    Map(Id),
    List {
        of: Id,
        min: usize,
        max: Option<usize>,
    },
    Tuple(Vec<Id>),
    Tagged {
        tag: String,
        variants: Vec<(String, Id)>,
        /// Keys that belong to no variant: those of the struct that the union was flattened into.
        shared: Vec<String>,
    },
    /// The first that fits.
    Either(Vec<Id>),
    Bool,
    Int {
        min: i128,
        max: i128,
    },
    Float {
        min: f64,
        max: f64,
    },
    Text(Text),
    /// Anything: serde has the last word.
    #[default]
    Any,
}

#[derive(Clone)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) node: Id,
    pub(crate) required: bool,
    pub(crate) aliases: Vec<String>,
}

#[derive(Default)]
pub(crate) struct Text {
    pub(crate) format: Option<Format>,
    /// Accepted in place of what the format asks for: `off`, `auto`.
    pub(crate) words: Vec<String>,
    /// All that is accepted, if not empty.
    pub(crate) choices: Vec<String>,
    pub(crate) min: usize,
    pub(crate) max: Option<usize>,
    /// What one may look like.
    pub(crate) example: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Duration,
    ByteSize,
    SocketAddr,
}

/// A key whose path is known before any value is: everything that is not inside a list or below a map.
pub(crate) struct Known {
    pub(crate) path: Vec<String>,
    pub(crate) node: Id,
}

/// The schema as `--config-schema` prints it.
pub(crate) fn generate<C: JsonSchema>() -> Json {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<C>().to_value()
}

impl Schema {
    /// Reads a schema.
    ///
    /// # Panics
    /// If an `x-env`, `x-env-host`, `x-env-port`, `x-env-ignored`, `x-env-families`, `x-format` or `x-words` in it is malformed: that is a
    /// mistake in the program, which every start shows.
    pub(crate) fn of(schema: &Json) -> Self {
        let (nodes, root) = build::arena(schema);
        let mut schema = Self { nodes, root };
        schema.mark_hiding();
        schema
    }

    pub(crate) fn root(&self) -> Id {
        self.root
    }

    pub(crate) fn kind(&self, id: Id) -> &Kind {
        &self.nodes[self.target(id)].kind
    }

    pub(crate) fn nullable(&self, id: Id) -> bool {
        self.chain(id).any(|node| node.nullable)
    }

    pub(crate) fn secret(&self, id: Id) -> bool {
        self.chain(id).any(|node| node.secret)
    }

    pub(crate) fn hides(&self, id: Id) -> bool {
        self.nodes[id].hides
    }

    pub(crate) fn section(&self, id: Id) -> Option<&str> {
        self.chain(id).find_map(|node| node.section.as_deref())
    }

    /// The names of a node: what stands beside a reference comes before what stands on the type.
    pub(crate) fn names(&self, id: Id) -> impl Iterator<Item = &Names> {
        self.chain(id).map(|node| &node.names)
    }

    /// The node itself, then those it links to.
    fn chain(&self, id: Id) -> impl Iterator<Item = &Node> {
        let next = |node: &&Node| match node.kind {
            Kind::Link(target) => Some(&self.nodes[target]),
            _ => None,
        };
        // A type that is only itself cannot be built, but its schema can be written: hence the bound.
        std::iter::successors(Some(&self.nodes[id]), next).take(self.nodes.len())
    }

    fn target(&self, id: Id) -> Id {
        let mut at = id;
        for _ in 0..self.nodes.len() {
            match self.nodes[at].kind {
                Kind::Link(next) => at = next,
                _ => return at,
            }
        }
        at
    }

    pub(crate) fn children(&self, id: Id) -> Vec<Id> {
        match &self.nodes[id].kind {
            Kind::Link(child) | Kind::Map(child) | Kind::List { of: child, .. } => vec![*child],
            Kind::Struct { fields, rest } => fields.iter().map(|field| field.node).chain(*rest).collect(),
            Kind::Tuple(items) | Kind::Either(items) => items.clone(),
            Kind::Tagged { variants, .. } => variants.iter().map(|(_, node)| *node).collect(),
            Kind::Bool | Kind::Int { .. } | Kind::Float { .. } | Kind::Text(_) | Kind::Any => Vec::new(),
        }
    }

    /// Every key with a fixed path, parents before children, variants' keys included.
    pub(crate) fn known(&self) -> Vec<Known> {
        let mut found = Vec::new();
        self.collect(self.root, &mut Vec::new(), &mut Vec::new(), &mut found);
        found
    }

    fn collect(&self, id: Id, path: &mut Vec<String>, above: &mut Vec<Id>, found: &mut Vec<Known>) {
        let target = self.target(id);
        if above.contains(&target) {
            return;
        }
        above.push(target);
        if !path.is_empty() && !found.iter().any(|known: &Known| known.path == *path) {
            found.push(Known { path: path.clone(), node: id });
        }
        match &self.nodes[target].kind {
            Kind::Struct { fields, .. } => {
                for field in fields {
                    path.push(field.name.clone());
                    self.collect(field.node, path, above, found);
                    path.pop();
                }
            }
            Kind::Tagged { variants, .. } => {
                variants.iter().for_each(|(_, node)| self.collect(*node, path, above, found))
            }
            Kind::Either(nodes) => nodes.iter().for_each(|node| self.collect(*node, path, above, found)),
            _ => {}
        }
        above.pop();
    }

    fn mark_hiding(&mut self) {
        loop {
            let hiding = |id: &Id| {
                let node = &self.nodes[*id];
                !node.hides && (node.secret || self.children(*id).iter().any(|child| self.nodes[*child].hides))
            };
            let found: Vec<Id> = (0..self.nodes.len()).filter(hiding).collect();
            if found.is_empty() {
                return;
            }
            found.into_iter().for_each(|id| self.nodes[id].hides = true);
        }
    }
}
