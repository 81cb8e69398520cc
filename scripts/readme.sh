#!/usr/bin/env bash
# Builds the README's first sample with the README's Cargo.toml in a package outside the repository, as a reader would.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$repository/target}

package=$(mktemp -d)
trap 'rm -rf "$package"' EXIT
mkdir "$package/src"

# block FENCE: the first code block that begins with FENCE.
block() { awk -v fence="$1" 'found && /^```$/ { exit } found { print } $0 == fence { found = 1 }' README.md; }

block '```toml' | sed "s|\"../mainspring\"|\"$repository\"|" >"$package/Cargo.toml"
block '```rust,no_run' >"$package/src/main.rs"
grep -q "$repository" "$package/Cargo.toml" || { echo "README.md: the first toml block does not name ../mainspring"; exit 1; }
# The versions that everything else here is tested with; nothing is fetched.
cp Cargo.lock "$package"
cargo check --offline --quiet --manifest-path "$package/Cargo.toml"
echo 'the sample builds outside the repository'
