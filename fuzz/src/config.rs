//! The configuration: files of each format, with a flag and a variable, through schema and coercion to a value or to
//! errors that say where.
//!
//! The first line of the input is the format's first letter, the shape of a secret, and what `--set` is given; the second
//! one is a variable; the rest is the file. The secret is put before it, so that nothing else can be where it stands.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use mainspring_config::{ByteSize, Duration, Exit, Loader, Secret};
use mainspring_observe::log;
use mainspring_pubsub::BrokerUrl;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{SECRET, assert_hidden, holds_secret};

/// A secret that is a number by mistake.
const NUMBER: &str = "71807180718";

/// One of every kind that a key can be.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    password: Option<Secret>,
    tokens: Vec<Secret>,
    users: BTreeMap<String, Secret>,
    flag: bool,
    port: u16,
    offset: i64,
    ratio: f64,
    #[schemars(length(min = 1))]
    name: Option<String>,
    #[schemars(range(min = 1, max = 100))]
    workers: Option<u8>,
    work: Duration,
    limit: ByteSize,
    tags: Vec<String>,
    labels: BTreeMap<String, String>,
    store: Store,
    topic: Option<BrokerUrl>,
    log: log::Config,
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Store {
    #[default]
    Memory,
    Sql {
        host: String,
        password: Secret,
        #[serde(default)]
        pool: u32,
    },
}

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("mainspring-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for files");
    folder
});

pub(crate) fn run(bytes: &[u8]) {
    let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
    let (first, variable, file) = (lines.next(), lines.next(), lines.next().unwrap_or_default());
    let (Some([format, shape, flag @ ..]), Some(variable)) = (first, variable) else { return };
    let (Ok(flag), Ok(variable)) = (std::str::from_utf8(flag), std::str::from_utf8(variable)) else { return };
    // Where the secret stands anywhere else, nobody has to hide it.
    if holds_secret(bytes) || bytes.windows(NUMBER.len()).any(|window| window == NUMBER.as_bytes()) {
        return;
    }
    let (extension, secret) = planted(*format, *shape);
    let text = [secret.as_bytes(), file].concat();
    let path = FOLDER.join(format!("config.{extension}"));
    std::fs::write(&path, &text).expect("a file that can be written");

    let mut args: Vec<OsString> = vec!["--config".into(), path.clone().into()];
    if !flag.is_empty() {
        args.extend(["--set".into(), flag.into()]);
    }
    let variable = variable.split_once('=').map(|(name, value)| (format!("FUZZ_{name}").into(), value.into()));
    let password = ("FUZZ_STORE__PASSWORD".into(), format!("{SECRET}{flag}").into());
    let loader = Loader::new("fuzz", "1").args(args).env(variable.into_iter().chain([password]));
    let loader = loader.section::<log::Config>("log").directory("/nonexistent");
    match loader.load::<Config>() {
        Ok(loaded) => {
            let shown = format!("{loaded:?}\n{}\n{:?}\n{:?}", loaded.printed(), loaded.notices(), loaded.config());
            hidden(&shown);
            prints_what_is_read(loaded.printed());
        }
        Err(Exit::Faults(error)) => {
            hidden(&format!("{error} {error:?}"));
            let lines = text.iter().filter(|byte| **byte == b'\n').count() + 1;
            assert!(!error.problems().is_empty(), "refused, and nobody knows why");
            for problem in error.problems() {
                assert!(
                    [&problem.key, &problem.source, &problem.what].iter().all(|text| !text.is_empty()),
                    "{problem:?}"
                );
                assert!(!problem.to_string().contains(char::is_control), "more than a line: {problem}");
                stands_somewhere(&problem.source, &path, lines);
            }
        }
        Err(exit) => hidden(&format!("{} {exit:?}", exit.stderr())),
    }
}

/// The beginning of a file, with a secret in it.
fn planted(format: u8, shape: u8) -> (&'static str, String) {
    let value = match shape % 6 {
        0 => format!("\"{SECRET}\""),
        1 => NUMBER.to_owned(),
        2 => format!("[\"{SECRET}\", {NUMBER}]"),
        3 => format!("{NUMBER}.5"),
        4 => format!("\"{SECRET}\\n{SECRET}\""),
        _ => format!("[[\"{SECRET}\"]]"),
    };
    let key = ["password", "tokens", "users"][usize::from(shape / 6 % 3)];
    let users = key == "users";
    match format {
        b'y' if users => ("yaml", format!("users:\n  bob: {value}\n")),
        b'y' => ("yaml", format!("{key}: {value}\n")),
        b'j' if users => ("json", format!("{{\"users\": {{\"bob\": {value}}},")),
        b'j' => ("json", format!("{{\"{key}\": {value},")),
        _ if users => ("toml", format!("users.bob = {value}\n")),
        _ => ("toml", format!("{key} = {value}\n")),
    }
}

/// What is printed can be read again, with the secrets put in.
fn prints_what_is_read(printed: &str) {
    let path = FOLDER.join("printed.toml");
    std::fs::write(&path, printed.replace("\"***\"", "\"secret\"")).expect("a file that can be written");
    let args = ["--config".into(), path.into()];
    if let Err(exit) = Loader::new("fuzz", "1").args(args).directory("/nonexistent").load::<Config>() {
        panic!("what is printed is refused: {}\n{printed}", exit.stderr());
    }
}

/// A source is a line of the file, or one of those that have no lines.
fn stands_somewhere(source: &str, path: &Path, lines: usize) {
    let path = path.display().to_string();
    match source.strip_prefix(&path) {
        Some("") => {}
        Some(at) => {
            let line: usize = at.trim_start_matches(':').parse().unwrap_or_else(|_| panic!("no line: {source}"));
            assert!((1..=lines).contains(&line), "line {line} of {lines}");
        }
        None => {
            let known = ["env FUZZ_", "flag --set", "default"].iter().any(|known| source.starts_with(known));
            assert!(known || source == "-", "from nowhere: {source}");
        }
    }
}

fn hidden(shown: &str) {
    assert_hidden("the configuration", shown);
    assert!(!shown.contains(NUMBER), "the configuration shows a secret number: {shown}");
}
