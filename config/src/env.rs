//! The environment: which variable means which key. Every name is looked up in the schema, never guessed from the variable.

mod alias;
mod lookup;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path as FilePath;
use std::sync::Arc;

use crate::coerce::json_of;
use crate::file;
use crate::path::Path;
use crate::problem::Problem;
use crate::raw::{Layer, Origin, Raw, Spot};
use crate::schema::{Id, Kind, Known, Names, Schema};
use crate::suggest;

pub(crate) use lookup::{Found, find, find_key};

/// A secret is short; what is longer is the wrong file.
const MAX_SECRET: u64 = 64 * 1024;
pub(crate) const PROFILE: &str = "APP_PROFILE";

/// The variables as they were given: those whose value is not UTF-8 have none.
pub(crate) type Vars = BTreeMap<String, Option<String>>;

pub(crate) struct Env<'a> {
    schema: &'a Schema,
    known: Vec<Known>,
    vars: &'a Vars,
    prefix: &'a str,
    problems: &'a mut Vec<Problem>,
    notices: &'a mut Vec<String>,
    found: Vec<Given>,
    files: Vec<Given>,
}

/// A key that a variable sets.
struct Given {
    path: Vec<String>,
    node: Id,
    name: String,
    text: String,
}

/// Where the two layers stand among the others.
pub(crate) struct Ranks {
    pub(crate) secret_files: usize,
    pub(crate) env: usize,
}

/// Collects the variables, leaving out empty ones: a variable that is set to nothing is not set.
pub(crate) fn collect(given: Vec<(OsString, OsString)>, prefix: &str, problems: &mut Vec<Problem>) -> Vars {
    let mut vars = Vars::new();
    for (name, value) in given {
        let name = match name.into_string() {
            Ok(name) => name,
            Err(name) => {
                let name = name.to_string_lossy().into_owned();
                if name.starts_with(prefix) {
                    problems.push(Problem::new("-", format!("env {name}"), "the name is not UTF-8 text"));
                }
                continue;
            }
        };
        if !value.is_empty() {
            vars.insert(name, value.into_string().ok());
        }
    }
    vars
}

/// The prefix of a service's variables: `order-book` has `ORDER_BOOK_`.
pub(crate) fn prefix(service: &str) -> String {
    let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("{}_", service.chars().map(upper).collect::<String>())
}

/// The canonical variable of a key.
pub(crate) fn canonical(prefix: &str, path: &[String]) -> String {
    format!("{prefix}{}", path.join("__").replace('-', "_").to_uppercase())
}

impl<'a> Env<'a> {
    pub(crate) fn new(
        schema: &'a Schema,
        vars: &'a Vars,
        prefix: &'a str,
        problems: &'a mut Vec<Problem>,
        notices: &'a mut Vec<String>,
    ) -> Self {
        let known = schema.known();
        Self { schema, known, vars, prefix, problems, notices, found: Vec::new(), files: Vec::new() }
    }

    /// Gives the layers that the variables make. `below` are the layers under them: a port alone completes the address
    /// that stands there.
    pub(crate) fn layers(mut self, below: &[Layer], ranks: &Ranks) -> Vec<Layer> {
        self.prefixed();
        self.families();
        self.aliases(below);
        self.secret_files();
        let mut layers = Vec::new();
        for (rank, mut given) in [(ranks.secret_files, self.files), (ranks.env, self.found)] {
            // A table given as JSON comes before its own keys, which then win.
            given.sort_by_key(|given| given.path.len());
            for Given { path, node, name, text } in given {
                let origin: Origin = Arc::new(format!("env {name}"));
                layers.push(Layer { rank, top: text_spot(self.schema, node, text, &origin).under(&path) });
            }
        }
        layers
    }

    /// Variables that begin with the service's own prefix: each must mean something.
    fn prefixed(&mut self) {
        let aliases: Vec<&str> =
            self.known.iter().flat_map(|known| self.schema.names(known.node)).flat_map(|n| n.all()).collect();
        let mut unknown = Vec::new();
        for (name, value) in self.vars {
            let Some(rest) = name.strip_prefix(self.prefix).filter(|rest| !rest.is_empty()) else { continue };
            if let Some(Found { path, node }) = find(self.schema, &parts(rest)) {
                let from_cluster =
                    value.as_deref().is_some_and(|value| is_injected(name, value)) && name.ends_with("PORT");
                if from_cluster {
                    continue;
                }
                if let Some(text) = self.readable(name, value, &path) {
                    self.add(path, node, name, text);
                }
                continue;
            }
            let file = rest.strip_suffix("_FILE").and_then(|rest| find(self.schema, &parts(rest)));
            if let Some(Found { path, node }) = file.filter(|found| self.schema.secret(found.node)) {
                if let Some(text) = self.readable(name, value, &path) {
                    self.files.push(Given { path, node, name: name.clone(), text });
                }
                continue;
            }
            let ours = aliases.contains(&name.as_str())
                || name.strip_suffix("_FILE").is_some_and(|name| aliases.contains(&name))
                || name == PROFILE
                || is_injected(name, value.as_deref().unwrap_or_default());
            if !ours {
                unknown.push(name.clone());
            }
        }
        for name in unknown {
            let hint = self.meant(&name).unwrap_or_default();
            self.problems.push(Problem::new("-", format!("env {name}"), "unknown variable").hint(hint));
        }
    }

    /// Variables that look like ones of ours but are none: only a notice, since they may be somebody else's.
    fn families(&mut self) {
        let names = |known: &Known| self.schema.names(known.node).collect::<Vec<_>>();
        let top = self.schema.names(self.schema.root());
        let declared: Vec<&Names> = self.known.iter().flat_map(names).chain(top).collect();
        let aliases: BTreeSet<&str> = declared.iter().flat_map(|names| names.all()).collect();
        let families: BTreeSet<&String> = declared.iter().flat_map(|names| &names.families).collect();
        for name in self.vars.keys().filter(|name| families.iter().any(|family| name.starts_with(*family))) {
            if !aliases.contains(name.as_str()) && !name.starts_with(self.prefix) {
                let near = suggest::nearest(name, aliases.iter().copied());
                let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
                self.notices.push(format!("{name} is not known and has no effect{hint}"));
            }
        }
    }

    fn add(&mut self, path: Vec<String>, node: Id, name: &str, text: String) {
        match self.found.iter().find(|given| given.path == path) {
            Some(other) if other.text != text => {
                let what = format!("{} and {name} are both set and differ", other.name);
                let source = format!("env {name}");
                self.problems.push(Problem::new(Path::of(&path), source, what).hint("unset one of them"));
            }
            Some(_) => {}
            None => self.found.push(Given { path, node, name: name.to_owned(), text }),
        }
    }

    /// The text of a variable, or a problem if it is not UTF-8.
    fn readable(&mut self, name: &str, value: &Option<String>, path: &[String]) -> Option<String> {
        if value.is_none() {
            self.problems.push(Problem::new(Path::of(path), format!("env {name}"), "the value is not UTF-8 text"));
        }
        value.clone()
    }

    /// Replaces the names of files by what is in them.
    fn secret_files(&mut self) {
        for mut given in std::mem::take(&mut self.files) {
            let (key, source) = (Path::of(&given.path), format!("env {}", given.name));
            if let Some(other) = self.found.iter().find(|found| found.path == given.path) {
                let what = format!("{} and {} are both set", other.name, given.name);
                self.problems.push(Problem::new(key, source, what).hint("unset one of them"));
                continue;
            }
            // The value is not shown: sooner or later somebody puts the secret itself there.
            match file::read(FilePath::new(&given.text), MAX_SECRET) {
                Ok(text) => {
                    let text =
                        text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
                    if text.is_empty() {
                        self.problems.push(Problem::new(key, source, "the file that it names is empty"));
                        continue;
                    }
                    given.text = text.to_owned();
                    self.files.push(given);
                }
                Err(why) => {
                    let hint = format!("{} takes the path of a file that holds the secret", given.name);
                    self.problems.push(Problem::new(key, source, format!("the file that it names {why}")).hint(hint));
                }
            }
        }
    }

    /// What somebody most likely had in mind.
    fn meant(&self, name: &str) -> Option<String> {
        let names: Vec<String> = self.known.iter().map(|known| canonical(self.prefix, &known.path)).collect();
        let same = |name: &str| names.iter().find(|known| suggest::folded(known) == suggest::folded(name));
        if let Some(plain) = name.strip_suffix("_FILE").and_then(same) {
            return Some(format!("only secrets are read from files; set {plain} itself"));
        }
        // The prefix, which all of them have, would make any two names look alike.
        let bare = |name: &'_ str| name.strip_prefix(self.prefix).unwrap_or(name).to_owned();
        let rests: Vec<String> = names.iter().map(|name| bare(name)).collect();
        let near = || suggest::nearest(&bare(name), rests.iter().map(String::as_str));
        let near = || near().map(|near| format!("{}{near}", self.prefix));
        same(name).cloned().or_else(near).map(|near| format!("did you mean {near}?"))
    }
}

/// A text for a key; a table can only be given as JSON.
pub(crate) fn text_spot(schema: &Schema, node: Id, text: String, origin: &Origin) -> Spot {
    let table = matches!(schema.kind(node), Kind::Struct { .. } | Kind::Map(_) | Kind::Tagged { .. } | Kind::Either(_));
    if table
        && text.trim_start().starts_with('{')
        && let Some(spot) = json_of(&text, origin)
    {
        return spot;
    }
    Spot::new(Raw::Text(text), origin)
}

fn parts(rest: &str) -> Vec<String> {
    rest.split("__").map(str::to_owned).collect()
}

/// What Kubernetes puts into every pod for each Service: nobody set it, so nobody has to answer for it.
fn is_injected(name: &str, value: &str) -> bool {
    let after = |mark: &str| name.rsplit_once(mark).map(|(_, rest)| rest);
    let numbered = |mark: &str| {
        after("PORT_")
            .and_then(|rest| rest.split_once(mark))
            .is_some_and(|(number, _)| number.bytes().all(|b| b.is_ascii_digit()))
    };
    let link = name.ends_with("PORT") && value.contains("://");
    let service = name.ends_with("SERVICE_HOST")
        || after("SERVICE_PORT").is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
    link || service || numbered("_TCP") || numbered("_UDP") || numbered("_SCTP")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_kubernetes_injects() {
        for name in [
            "A_SERVICE_HOST",
            "A_SERVICE_PORT",
            "A_SERVICE_PORT_HTTP",
            "A_PORT_80_TCP",
            "A_PORT_80_TCP_ADDR",
            "A_PORT_53_UDP_PROTO",
        ] {
            assert!(is_injected(name, "10.0.0.1"), "{name}");
        }
        assert!(is_injected("A_PORT", "tcp://10.0.0.1:80"));
        for name in ["A_PORT", "A_HOST", "A_PORT_RANGE", "A_SERVICE_PORTS"] {
            assert!(!is_injected(name, "81"), "{name}");
        }
    }

    #[test]
    fn prefix_is_the_name_in_capitals() {
        assert_eq!(prefix("order-book"), "ORDER_BOOK_");
    }
}
