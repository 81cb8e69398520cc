use super::{Env, Given, find, is_injected, parts};
use crate::leaf;
use crate::path::Path;
use crate::problem::Problem;
use crate::raw::{Layer, Spot};
use crate::schema::{Alias, Id};

/// A whole value, or a part of an address, that an alias gives.
struct Part {
    name: String,
    text: String,
}

impl Env<'_> {
    /// Variables without the prefix, each declared by the key that it sets.
    pub(super) fn aliases(&mut self, below: &[Layer]) {
        for known in std::mem::take(&mut self.known) {
            self.ignored(known.node);
            let (path, node) = (known.path.clone(), known.node);
            self.known_files(&path, node);
            self.whole(&path, node);
            self.address(&path, node, below);
        }
    }

    fn ignored(&mut self, node: Id) {
        for ignored in self.schema.names(node).flat_map(|names| &names.ignored) {
            if self.vars.contains_key(&ignored.name) {
                let why = if ignored.why.is_empty() { String::new() } else { format!(": {}", ignored.why) };
                let notice = format!("{} is accepted and has no effect{why}", ignored.name);
                if !self.notices.contains(&notice) {
                    self.notices.push(notice);
                }
            }
        }
    }

    fn known_files(&mut self, path: &[String], node: Id) {
        if !self.schema.secret(node) {
            return;
        }
        let names = self.schema.names(node).flat_map(|names| &names.env).map(|alias| format!("{}_FILE", alias.name));
        for name in names.collect::<Vec<_>>() {
            if let Some(value) = self.vars.get(&name)
                && let Some(text) = self.readable(&name, value, path)
            {
                self.files.push(Given { path: path.to_vec(), node, name, text });
            }
        }
    }

    /// Aliases that give the whole value.
    fn whole(&mut self, path: &[String], node: Id) {
        let schema = self.schema;
        for alias in schema.names(node).flat_map(|names| &names.env) {
            let Some(part) = self.part(&alias.name, path) else { continue };
            let Some(text) = self.translated(alias, &part.text, path) else { continue };
            if alias.overrides {
                for given in self.found.iter().filter(|given| given.path == path && given.text != text) {
                    self.notices.push(format!("{} overrides {}", alias.name, given.name));
                }
                self.found.retain(|given| given.path != path);
                self.found.push(Given { path: path.to_vec(), node, name: part.name, text });
                return;
            }
            self.agree(path, node, part.name, text);
        }
    }

    /// Adds what an alias says, unless another name of the same key has said something else.
    fn agree(&mut self, path: &[String], node: Id, name: String, text: String) {
        let Some(other) = self.found.iter().find(|given| given.path == path) else {
            self.found.push(Given { path: path.to_vec(), node, name, text });
            return;
        };
        if !self.equal(node, &other.text, &text) {
            let what = format!("{} and {name} are both set and differ", other.name);
            let hint = format!("unset {name}, or make them equal");
            self.problems.push(Problem::new(Path::of(path), format!("env {name}"), what).hint(hint));
        }
    }

    /// `10s` and `10000ms` are one duration, `1` and `true` one answer.
    fn equal(&self, node: Id, one: &str, other: &str) -> bool {
        let read = |text: &str| leaf::normal(self.schema.kind(node), text);
        one == other || read(one).is_some_and(|value| read(other) == Some(value))
    }

    fn translated(&mut self, alias: &Alias, text: &str, path: &[String]) -> Option<String> {
        let mut text = text.to_owned();
        if !alias.map.is_empty() {
            let truth = leaf::truth(&text).map(|flag| flag.to_string());
            let to = alias.map.iter().find(|(from, _)| *from == text || Some(from) == truth.as_ref());
            let Some((_, to)) = to else {
                let choices: Vec<&str> = alias.map.iter().map(|(from, _)| from.as_str()).collect();
                let what = format!("{text:?} is not known; expected one of {}", choices.join(", "));
                self.problems.push(Problem::new(Path::of(path), format!("env {}", alias.name), what));
                return None;
            };
            text.clone_from(to);
        }
        Some(alias.template.as_ref().map_or_else(|| text.clone(), |template| template.replace("{}", &text)))
    }

    /// Aliases that give the host or the port of an address. What they leave open comes from the layers below.
    fn address(&mut self, path: &[String], node: Id, below: &[Layer]) {
        let schema = self.schema;
        let hosts: Vec<&String> = schema.names(node).flat_map(|names| &names.host).collect();
        let ports: Vec<&String> = schema.names(node).flat_map(|names| &names.port).collect();
        let host = self.one_of(&hosts, path, "host");
        let port = self.one_of(&ports, path, "port");
        let name = match (&host, &port) {
            (Some(host), Some(port)) => format!("{} + {}", host.name, port.name),
            (Some(one), None) | (None, Some(one)) => one.name.clone(),
            (None, None) => return,
        };
        let given = self.found.iter().find(|given| given.path == path);
        let under = below.iter().rev().find_map(|layer| at(&layer.top, path)).and_then(Spot::text);
        let base = given.map(|given| given.text.as_str()).or(under).and_then(|text| text.rsplit_once(':'));
        let (base_host, base_port) = base.unwrap_or(("0.0.0.0", ""));
        let host_text = host.as_ref().map_or_else(|| base_host.to_owned(), |host| bracketed(&host.text));
        let Some(port_text) =
            port.as_ref().map(|port| port.text.as_str()).or(Some(base_port).filter(|p| !p.is_empty()))
        else {
            let hint = format!("set {} too", ports.first().map_or("the whole address", |name| name.as_str()));
            self.problems.push(Problem::new(Path::of(path), format!("env {name}"), "the port is missing").hint(hint));
            return;
        };
        let text = format!("{host_text}:{port_text}");
        self.agree(path, node, name, text);
    }

    fn one_of(&mut self, names: &[&String], path: &[String], what: &str) -> Option<Part> {
        let mut first: Option<Part> = None;
        for name in names {
            let Some(part) = self.part(name, path) else { continue };
            let fits = if what == "port" { part.text.parse::<u16>().is_ok() } else { is_host(&part.text) };
            if !fits {
                let expected = if what == "port" {
                    "a port from 0 to 65535"
                } else {
                    "a host without a port, such as \"127.0.0.1\""
                };
                let text = format!("{:?} is no {what}; expected {expected}", part.text);
                self.problems.push(Problem::new(Path::of(path), format!("env {name}"), text));
                continue;
            }
            match &first {
                None => first = Some(part),
                Some(other) if other.text == part.text => {}
                Some(other) => {
                    let text = format!("{} and {name} are both set and differ", other.name);
                    let hint = format!("unset {name}, or make them equal");
                    self.problems.push(Problem::new(Path::of(path), format!("env {name}"), text).hint(hint));
                }
            }
        }
        first
    }

    /// The value of an alias. One that is also the canonical name of some key means that key, and Kubernetes'
    /// `HTTP_PORT=tcp://…`, for a Service called `http`, means nothing.
    fn part(&mut self, name: &str, path: &[String]) -> Option<Part> {
        let canonical = name.strip_prefix(self.prefix).and_then(|rest| find(self.schema, &parts(rest)));
        if canonical.is_some() {
            return None;
        }
        let value = self.vars.get(name)?;
        let text = self.readable(name, value, path)?;
        let injected = name.ends_with("PORT") && is_injected(name, &text);
        (!injected).then(|| Part { name: name.to_owned(), text })
    }
}

fn at<'a>(top: &'a Spot, path: &[String]) -> Option<&'a Spot> {
    path.iter().try_fold(top, |spot, key| spot.get(key))
}

fn is_host(text: &str) -> bool {
    text.parse::<std::net::Ipv6Addr>().is_ok()
        || text.starts_with('[') && text.ends_with(']')
        || !text.contains([':', '/', ' '])
}

fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}
