//! What the compiler says about handlers that are none.
//!
//! Each file in `signatures/` is a program. One that names sentences, as `// says: …`, must not compile, and the compiler's
//! errors must have them; one that names none must compile. Only sentences of ours are looked for: the rest of what a
//! compiler says changes with its version.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

const SAYS: &str = "// says: ";

#[test]
fn the_compiler_says_what_a_handler_has_to_be() {
    let programs = programs();
    assert!(programs.len() > 5, "the programs are found");
    let said = compile(programs.keys());
    let mut wrong = Vec::new();
    for (name, source) in &programs {
        let sentences: Vec<_> = source.lines().filter_map(|line| line.strip_prefix(SAYS)).collect();
        let errors = said.get(name).map(String::as_str).unwrap_or_default();
        if errors.is_empty() != sentences.is_empty() {
            wrong.push(format!("{name}: {}", if errors.is_empty() { "compiles" } else { errors }));
        }
        for missing in sentences.iter().filter(|sentence| !errors.contains(**sentence)) {
            wrong.push(format!("{name}: nobody says `{missing}`:\n{errors}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The programs, by name.
fn programs() -> BTreeMap<String, String> {
    let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/signatures")).unwrap();
    let program =
        |path: &Path| (path.file_stem().unwrap().to_string_lossy().into_owned(), fs::read_to_string(path).unwrap());
    files.map(|file| program(&file.unwrap().path())).collect()
}

/// Has all programs checked, as one package with a binary each; answers what the compiler calls errors.
fn compile<'a>(names: impl Iterator<Item = &'a String>) -> BTreeMap<String, String> {
    let (here, place) = (env!("CARGO_MANIFEST_DIR"), Path::new(env!("CARGO_TARGET_TMPDIR")).join("signatures"));
    let mut manifest = format!(
        "[workspace]\n[package]\nname = \"signatures\"\nedition = \"2024\"\nversion = \"0.0.0\"\n\
         [dependencies]\nmainspring-pubsub = {{ path = {here:?} }}\n"
    );
    for name in names {
        let path = Path::new(here).join("tests/signatures").join(name).with_extension("rs");
        manifest.push_str(&format!("[[bin]]\nname = {name:?}\npath = {path:?}\n"));
    }
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join("Cargo.toml"), manifest).unwrap();
    // The same versions, all of which are here already.
    fs::copy(Path::new(here).join("../Cargo.lock"), place.join("Cargo.lock")).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["check", "--offline", "--keep-going", "--message-format=json", "--target-dir"]);
    // Dependencies that were checked before, by whomever, need not be checked again.
    let shared = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let output = cargo.arg(shared).current_dir(&place).output().unwrap();
    let mut errors: BTreeMap<String, String> = BTreeMap::new();
    let mut checked = 0;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: serde_json::Value = serde_json::from_str(line).unwrap();
        let Some(target) = message["target"]["name"].as_str() else { continue };
        checked += 1;
        if message["message"]["level"] == "error" {
            errors.entry(target.to_owned()).or_default().push_str(message["message"]["rendered"].as_str().unwrap());
        }
    }
    assert!(checked > 0, "nothing was compiled: {}", String::from_utf8_lossy(&output.stderr));
    errors
}
