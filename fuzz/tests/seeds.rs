//! The committed seeds, and with them everything that fuzzing has ever found.

use std::path::Path;

fn run(name: &str) {
    let target = mainspring_fuzz::target(name).expect("a target");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name);
    let mut count = 0;
    for seed in std::fs::read_dir(&folder).unwrap() {
        let seed = seed.unwrap().path();
        println!("{}", seed.display());
        target(&std::fs::read(&seed).unwrap());
        count += 1;
    }
    assert!(count > 0, "no seeds in {}", folder.display());
}

#[test]
fn configurations() {
    run("config");
}

#[test]
fn hole_notes() {
    run("holes");
}

#[test]
fn log_lines() {
    run("log");
}

#[test]
fn trace_contexts() {
    run("trace");
}

#[test]
fn broker_urls() {
    run("url");
}

#[test]
fn durations_sizes_and_filters() {
    run("values");
}

/// The script that fuzzes takes the names from the folders.
#[test]
fn every_target_has_a_folder_of_seeds_and_a_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let mut folders: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    folders.sort();
    assert_eq!(folders, mainspring_fuzz::TARGETS.map(|(name, _)| name));
    let tests = include_str!("seeds.rs");
    assert!(folders.iter().all(|name| tests.contains(&format!("    run(\"{name}\");"))));
}
