//! What must hold whatever comes in.
//!
//! A target is a function that takes any bytes, has the kit read or write them, and panics when a promise is broken.
//! `scripts/fuzz.sh` looks for bytes that make one panic; `tests/seeds.rs` runs those that are committed in `seeds/`,
//! among them everything that was ever found. Nothing here needs a broker, a socket or a C library.

mod config;
mod holes;
mod input;
mod log;
mod trace;
mod url;
mod values;

use std::sync::OnceLock;

/// A promise about any bytes; panics when it is broken.
pub type Target = fn(&[u8]);

/// The targets by name, which is also the name of the folder of their seeds.
pub const TARGETS: [(&str, Target); 6] = [
    ("config", config::run),
    ("holes", holes::run),
    ("log", log::run),
    ("trace", trace::run),
    ("url", url::run),
    ("values", values::run),
];

/// What is planted where a secret stands, and must not be seen anywhere else.
const SECRET: &str = "hunter2Q7x";

/// Finds a target by its name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}

/// The target that the variable `FUZZ_TARGET` names: one program fuzzes them all, and is linked once.
///
/// # Panics
/// If it names none.
pub fn chosen() -> Target {
    static CHOSEN: OnceLock<Target> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        target(&name).unwrap_or_else(|| panic!("FUZZ_TARGET={name:?} is no target; scripts/fuzz.sh lists them"))
    })
}

/// Fails if `shown`, which `whose` it is, has the planted secret in it.
#[track_caller]
fn assert_hidden(whose: &str, shown: &str) {
    assert!(!shown.contains(SECRET), "{whose} shows a secret: {shown}");
}

/// Whether the secret stands in what comes in, where nobody has to hide it.
fn holds_secret(input: &[u8]) -> bool {
    input.windows(SECRET.len()).any(|window| window == SECRET.as_bytes())
}
