//! The steps of one load, in their order: layers, merge, fill, (serde), check.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;

use crate::check::Report;
use crate::coerce::Coercer;
use crate::env::{self, Env, Ranks, Vars};
use crate::flags::Flags;
use crate::loader::Registered;
use crate::path::{self, Path};
use crate::problem::Problem;
use crate::raw::{DEFAULT, Layer, Origin, Spot};
use crate::redact::redact_text;
use crate::schema::Schema;
use crate::settle::{Settled, Unset};
use crate::vault::Vault;
use crate::{file, finish, merge, suggest};

/// One load under way.
pub(crate) struct Work<'a> {
    schema: &'a Schema,
    pub(crate) prefix: String,
    pub(crate) vault: Vault,
    pub(crate) problems: Vec<Problem>,
    pub(crate) notices: Vec<String>,
    /// A file could not be read: what it would have set is unknown.
    torn: bool,
}

impl<'a> Work<'a> {
    pub(crate) fn new(schema: &'a Schema, prefix: String) -> Self {
        Self { schema, prefix, vault: Vault::new(), problems: Vec::new(), notices: Vec::new(), torn: false }
    }

    pub(crate) fn layers(&mut self, defaults: &Json, flags: &Flags, vars: &Vars, directory: &FilePath) -> Vec<Layer> {
        let mut layers = vec![Layer { rank: 0, top: Spot::from_json(defaults, &Arc::new(DEFAULT.to_owned())) }];
        for path in self.files(flags, vars, directory) {
            match file::load(&path, &mut self.problems) {
                Some(top) => layers.push(Layer { rank: layers.len(), top }),
                None => self.torn = true,
            }
        }
        let ranks = Ranks { secret_files: layers.len(), env: layers.len() + 1 };
        let env = Env::new(self.schema, vars, &self.prefix, &mut self.problems, &mut self.notices);
        layers.extend(env.layers(&layers, &ranks));
        for (order, (key, value)) in flags.set.iter().enumerate() {
            if let Some(top) = self.flag(key, value) {
                layers.push(Layer { rank: ranks.env + 1 + order, top });
            }
        }
        layers
    }

    /// The files to read, in order: every file, then every profile.
    fn files(&mut self, flags: &Flags, vars: &Vars, directory: &FilePath) -> Vec<PathBuf> {
        let mut bases = flags.files.clone();
        if bases.is_empty() {
            let endings = ["toml", "yaml", "yml", "json"];
            bases = endings.map(|ending| directory.join("config").with_extension(ending)).to_vec();
            bases.retain(|path| path.exists());
            if let [first, second, ..] = &bases[..] {
                let what = format!("{} is there too, and neither comes first", second.display());
                self.problems
                    .push(Problem::new("-", first.display(), what).hint("keep one, or name them with --config"));
            }
        }
        let asked = flags.profile.as_ref();
        let Some(profile) = asked.or(vars.get(env::PROFILE).and_then(Option::as_ref)) else { return bases };
        let source = if asked.is_some() { "flag --profile".to_owned() } else { format!("env {}", env::PROFILE) };
        if profile.is_empty() || !profile.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
            let what = format!("{profile:?} is no profile; expected letters, digits, -, _ and .");
            self.problems.push(Problem::new("-", source, what));
            return bases;
        }
        let beside = |base: &PathBuf| {
            let ending = base.extension().unwrap_or_default().to_string_lossy().into_owned();
            base.with_extension(format!("{profile}.{ending}"))
        };
        let profiles: Vec<PathBuf> = bases.iter().map(beside).collect();
        if !profiles.iter().any(|path| path.exists()) {
            let sought: Vec<String> = profiles.iter().map(|path| path.display().to_string()).collect();
            let what = match &sought[..] {
                [] => format!("profile {profile:?} has no file: there is no configuration file to stand beside"),
                _ => format!("profile {profile:?} has no file; expected {}", sought.join(" or ")),
            };
            // Who asks by flag means this service; the variable is often set for a whole cluster.
            if asked.is_some() {
                self.problems.push(Problem::new("-", source, what));
            } else {
                self.notices.push(format!("{source}: {what}"));
            }
        }
        // All files before all profiles: a profile wins over every file.
        bases.extend(profiles.into_iter().filter(|path| path.exists()));
        bases
    }

    fn flag(&mut self, key: &str, value: &str) -> Option<Spot> {
        let source = format!("flag --set {key}");
        let Some(keys) = path::split(key) else {
            self.problems.push(Problem::new("-", source, "is no key; expected names with dots between them"));
            return None;
        };
        let Some(found) = env::find_key(self.schema, &keys) else {
            if let Some(map) = self.flat_map(&keys) {
                let meant = map.key(&keys[map.len()..].join("."));
                let hint = format!("{map} has no tables in it; a key with a dot is written in quotes: {meant}");
                self.problems.push(Problem::new(Path::of(&keys), source, "unknown key").hint(hint));
                return None;
            }
            let names: Vec<String> =
                self.schema.known().iter().map(|known| Path::of(&known.path).to_string()).collect();
            let meant = suggest::nearest(key, names.iter().map(String::as_str));
            let hint = meant.map(|meant| format!("did you mean {meant:?}?")).unwrap_or_default();
            self.problems.push(Problem::new(Path::of(&keys), source, "unknown key").hint(hint));
            return None;
        };
        if self.schema.secret(found.node) {
            let key = Path::of(&found.path);
            self.notices.push(format!("--set {key} holds a secret, which the list of processes shows to everybody"));
        }
        let origin: Origin = Arc::new(source);
        Some(env::text_spot(self.schema, found.node, value.to_owned(), &origin).under(&found.path))
    }

    /// The map of plain values that the way to a key goes through, if it does.
    fn flat_map(&self, keys: &[String]) -> Option<Path> {
        let found = env::find(self.schema, keys).filter(|found| found.path.len() < keys.len())?;
        Some(Path::of(&found.path[..found.path.len() - 1]))
    }

    pub(crate) fn merge(&mut self, layers: &[Layer]) -> Settled {
        let mut refused = Vec::new();
        let mut values = Vec::new();
        for (index, layer) in layers.iter().enumerate() {
            let mut coercer = Coercer {
                schema: self.schema,
                vault: &mut self.vault,
                problems: &mut self.problems,
                refused: &mut refused,
                rank: layer.rank,
                defaults: index == 0,
            };
            values.extend(coercer.layer(layer, layers));
        }
        Settled::of(self.schema, &merge::merge(values), &refused)
    }

    /// Reports what must be set and is not, and gives the value for serde: with secrets, and with defaults in the gaps so
    /// that serde can say what else is wrong.
    pub(crate) fn fill(&mut self, settled: &Settled, defaults: &Json) -> Json {
        let mut json = self.vault.reveal(&settled.json);
        for Unset { path, source, expected, secret } in &settled.unset {
            if !self.torn && !self.is_faulty(&path.to_string()) {
                let problem = Problem::new(path, source, format!("is not set; expected {expected}"));
                self.problems.push(problem.hint(self.how_to_set(path, *secret)));
            }
            if let Some(default) = path.get(defaults) {
                path.set(&mut json, Some(default));
            }
        }
        json
    }

    fn how_to_set(&self, path: &Path, secret: bool) -> String {
        match path.keys() {
            None => String::new(),
            Some(keys) => {
                let name = env::canonical(&self.prefix, &keys);
                let file = if secret { format!(", or {name}_FILE") } else { String::new() };
                format!("set {name}{file}, or the key in a file")
            }
        }
    }

    pub(crate) fn refused(&mut self, settled: &Settled, refusal: &finish::Refusal) {
        let mut path = refusal.path.clone();
        let mut what = self.vault.scrub(&refusal.message);
        if let Some(field) = refusal.missing() {
            path = path.key(field);
            what = "is not set".to_owned();
        } else if path.get(&settled.json).is_some_and(|json| self.vault.holds_any_of(json)) {
            what = "does not fit (the values are not shown)".to_owned();
        } else if let Some(json) = path.get(&settled.json).filter(|json| !json.is_object() && !json.is_array()) {
            what = redact_text(&format!("{json} does not fit: {what}"));
        }
        let key = path.to_string();
        if self.torn && what == "is not set" || self.is_faulty(&key) {
            return;
        }
        self.problems.push(Problem::new(key, settled.origin(&path), what));
    }

    pub(crate) fn check(&mut self, checks: &[Registered], settled: &Settled, json: &Json) {
        let mut found = Vec::new();
        for Registered { section, other, run } in checks {
            let other = settled.sections.iter().find(|(name, _)| Some(name.as_str()) == *other);
            let other = other.map(|(_, place)| settled.section(place, json)).unwrap_or_default();
            let whole = section.is_none().then(Path::default);
            let named = settled.sections.iter().filter(|(name, _)| Some(name.as_str()) == *section);
            for place in whole.iter().chain(named.map(|(_, path)| path)) {
                let report = settled.section(place, json).iter().find_map(|section| run(section, &other));
                for fault in report.map(Report::into_faults).unwrap_or_default() {
                    let keys: Vec<Path> = fault.keys.iter().map(|key| place.join(key)).collect();
                    if keys.iter().any(|key| self.is_faulty(&key.to_string())) {
                        continue;
                    }
                    let source = settled.origin(&keys[0]);
                    found.push(
                        Problem::new(&keys[0], source, self.vault.scrub(&fault.what))
                            .hint(self.vault.scrub(&fault.hint)),
                    );
                }
            }
        }
        self.problems.extend(found);
    }

    fn is_faulty(&self, key: &str) -> bool {
        key != "-" && self.problems.iter().any(|problem| path::overlaps(&problem.key, key))
    }
}
