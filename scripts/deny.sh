#!/usr/bin/env bash
# Runs cargo-deny, which is installed first where it is missing.
#
#   scripts/deny.sh check        licences, bans, sources: needs nothing from outside
#   scripts/deny.sh advisories   known vulnerabilities; exit 77 (skipped) where the database cannot be fetched
#
# It takes minutes to build, so it lives in the user's cache and not in the clone.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.20.2
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mainspring
deny=$cache/cargo-deny-$version/bin/cargo-deny

if [ ! -x "$deny" ]; then
    echo "installing cargo-deny $version into $cache (once; takes minutes)"
    # Its own target folder: CARGO_TARGET_DIR may be shared with a build that runs at the same time.
    CARGO_TARGET_DIR=$cache/build cargo install --quiet --locked --no-default-features \
        --version "$version" --root "$cache/cargo-deny-$version" cargo-deny
    rm -rf "$cache/build"
fi

# Dependencies of every feature and of every platform that deny.toml names count, tests' included.
deny() { "$deny" --all-features --workspace "$@"; }

case ${1:-check} in
    check) deny check --hide-inclusion-graph bans licenses sources ;;
    advisories)
        out=$(timeout 120 "$deny" fetch db 2>&1) || {
            echo "$out" | tail -n 3
            echo 'the advisory database could not be fetched'
            exit 77
        }
        deny check --disable-fetch advisories
        ;;
    *) echo "scripts/deny.sh: unknown mode '$1'; use check or advisories" >&2; exit 2 ;;
esac
