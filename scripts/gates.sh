#!/usr/bin/env bash
# Counts what a request and a message cost, in instructions and allocations, and holds it against benches/gates.toml.
#
#   scripts/gates.sh            fails when a number has risen, and says which
#   scripts/gates.sh --accept   writes the numbers anew
#   scripts/gates.sh CASE…      only these, for example dispatch or http1-kit
#
# Needs valgrind, and installs it where apt can. Without it the step is skipped (exit 77), in CI it fails.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v valgrind >/dev/null; then
    { apt-get update && apt-get install --yes --no-install-recommends valgrind; } >/dev/null 2>&1 || true
fi
if ! command -v valgrind >/dev/null; then
    echo 'valgrind is missing and cannot be installed here: install it to count instructions'
    [ "${CI:-}" = true ] && exit 1
    exit 77
fi
# Without the frame pointers of .cargo/config.toml: they add their few per cent to every function alike, and the
# numbers are about what the kit does.
export RUSTFLAGS='-C force-frame-pointers=no'
exec cargo run --quiet --locked --release --package mainspring-benches --no-default-features --bin gates -- "$@"
