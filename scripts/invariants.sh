#!/usr/bin/env bash
# Proves what ARCHITECTURE.md promises about dependencies. Says every breach, then exits 1.
set -euo pipefail
cd "$(dirname "$0")/.."

bad=0
breach() { echo "breach: $*" >&2; bad=1; }

# The names of everything a crate is built from, itself left out. Tests may use more.
deps() { cargo tree --locked -p "$1" --all-features --target all -e normal,build --prefix none -f '{p}' "${@:2}" |
    awk -v self="$1" '$1 != self { print $1 }' | sort -u; }

# never CRATE WHY PATTERN: none of CRATE's dependencies matches PATTERN.
never() {
    local names hits
    names=$(deps "$1") # on its own, so that a cargo that fails is not taken for a crate without dependencies
    hits=$(grep -Ex "$3" <<<"$names" | paste -sd ' ' || true)
    [ -z "$hits" ] || breach "$1 depends on $hits: $2"
}

clients='rdkafka.*|aws-.*|google-cloud-.*|gcloud-.*|async-nats|lapin|redis|reqwest'
never mainspring-server 'the two halves meet in main only' 'mainspring-pubsub'
never mainspring-server 'whoever serves HTTP builds no broker client' "$clients"
never mainspring-pubsub 'the two halves meet in main only' 'mainspring-(server|web)'
never mainspring-pubsub 'each broker client is a crate of its own' "$clients"
never mainspring-pubsub 'messages need no web framework' 'axum.*|hyper.*|tonic.*'
never mainspring-web 'handlers can be written without the rest of the kit' 'mainspring.*'
never mainspring-config 'everything else rests on it' 'mainspring.*'
never mainspring-observe 'it serves both halves alike' 'mainspring-(daemon|web|server|pubsub)|axum.*|hyper.*'

direct=$(deps mainspring-daemon --depth 1 | paste -sd ' ')
[ "$direct" = tokio ] || breach "mainspring-daemon depends on '$direct': it is for tokio alone"

# The whole workspace, tests included.
all=$(cargo tree --locked --workspace --all-features --target all -e normal,build,dev --prefix none -f '{p}' |
    awk '{ print $1, $2 }' | sort -u)
for crate in axum tonic hyper http rustls prost; do
    versions=$(awk -v crate="$crate" '$1 == crate { print $2 }' <<<"$all" | paste -sd ' ')
    case $versions in *' '*) breach "more than one version of $crate: $versions" ;; esac
done
for crate in ring inferno; do
    if awk '{ print $1 }' <<<"$all" | grep -qx "$crate"; then
        breach "$crate is in the tree: $(cargo tree --workspace --all-features --target all -e normal,build,dev -i "$crate" --depth 1 | sed -n 2p)"
    fi
done

# Kafka's client knows no TLS but OpenSSL's. Whoever does not ask for `kafka-tls` gets none of it, whatever else is on;
# that nobody else may bring it is in deny.toml.
features=$(cargo metadata --locked --no-deps --format-version 1 | python3 -c '
import json, sys
for package in json.load(sys.stdin)["packages"]:
    for feature in package["features"]:
        if (package["name"], feature) != ("mainspring-kafka", "tls") and feature != "kafka-tls":
            print(package["name"] + "/" + feature)' | paste -sd ,)
plain=$(cargo tree --locked --workspace --features "$features" --target all -e normal,build,dev --prefix none -f '{p}')
if awk '{ print $1 }' <<<"$plain" | grep -qx openssl-sys; then
    breach 'openssl-sys is in the tree without the feature kafka-tls'
fi

# Crates in two versions or more cost build time and surprise: the ceiling may fall, not rise.
ceiling=8
twice=$(awk '{ print $1 }' <<<"$all" | uniq -d | paste -sd ' ')
[ "$(wc -w <<<"$twice")" -le $ceiling ] || breach "more than $ceiling crates in several versions: $twice"

grep -q '^unsafe_code = "forbid"' Cargo.toml || breach 'Cargo.toml: unsafe_code is not forbidden'
for manifest in $(git ls-files '*Cargo.toml'); do
    grep -A1 -x '\[lints\]' "$manifest" | grep -qx 'workspace = true' || breach "$manifest: does not take the workspace's lints"
    [ "$manifest" = Cargo.toml ] && continue
    versions=$(grep -nE '^[A-Za-z0-9_-]+ *= *"|^[A-Za-z0-9_-]+ *= *\{.*(version|path|git) *=' "$manifest" |
        grep -vE '^[0-9]+:(name|description|path|harness|test|default-run) *=' || true)
    [ -z "$versions" ] || breach "$manifest: versions belong into the root Cargo.toml: $versions"
done

[ "$bad" = 0 ] && echo 'all invariants hold'
exit "$bad"
