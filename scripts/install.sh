#!/usr/bin/env bash
# Installs packages of the system's distribution: install.sh PACKAGE…
set -euo pipefail

command -v apt-get >/dev/null || { echo "please install $* by hand: there is no apt-get here" >&2; exit 1; }
echo "installing $*"
sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo)
"${sudo[@]}" apt-get -qq update
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y "$@" >/dev/null
