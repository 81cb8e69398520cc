#!/usr/bin/env bash
# Builds a container image of one example: scripts/image.sh orders  ->  mainspring/orders:<version>
#
# IMAGE names it otherwise, FEATURES adds cargo features (FEATURES=kafka), DOCKER picks another engine (podman).
set -euo pipefail
cd "$(dirname "$0")/.."

example=${1:-orders}
[ -f "examples/$example/Cargo.toml" ] || {
    echo "there is no example '$example'; there are: $(ls examples | paste -sd ' ')" >&2
    exit 2
}
engine=${DOCKER:-docker}
command -v "$engine" >/dev/null || { echo "$engine is not installed; DOCKER=podman picks another engine" >&2; exit 1; }
version=$(sed -n '/^\[workspace.package\]/,/^$/ s/^version = "\(.*\)"/\1/p' Cargo.toml)
image=${IMAGE:-mainspring/$example:$version}

# The commit's time, so that building the same commit again gives the same layers.
"$engine" build --file deploy/Dockerfile --tag "$image" \
    --build-arg EXAMPLE="$example" --build-arg FEATURES="${FEATURES:-}" --build-arg VERSION="$version" \
    --build-arg SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)" --build-arg REVISION="$(git rev-parse HEAD)" .
echo "$image"
