//! The fuzzer: see `scripts/fuzz.sh`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mainspring_fuzz::chosen()(bytes));
