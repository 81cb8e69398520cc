//! Finds out whether this build keeps frame pointers, which the source cannot see.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(frame_pointers)");
    println!("cargo::rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    if kept(&flags) {
        println!("cargo::rustc-cfg=frame_pointers");
    }
}

/// The last mention counts, as it does for rustc.
fn kept(flags: &str) -> bool {
    let mut values =
        flags.split('\x1f').filter_map(|flag| flag.split_once("force-frame-pointers").map(|(_, value)| value));
    values.next_back().is_some_and(|value| !matches!(value.trim_start_matches('='), "no" | "n" | "off" | "false"))
}
