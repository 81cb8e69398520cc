#!/usr/bin/env bash
# Runs the checks and ends with one line: N passed, N failed, N skipped.
#
#   scripts/test.sh all     what CI runs
#   scripts/test.sh quick   tests inside one process, nothing else
#   scripts/test.sh lint    formatting and clippy
#
# A failed step does not keep the later ones from running: all that is wrong is seen in one go.
set -euo pipefail
cd "$(dirname "$0")/.."

passed=0 failed=0 skipped=0
reasons=()
log=$(mktemp)
started=no
trap 'rm -f "$log"; [ $started = no ] || scripts/brokers.sh down kafka' EXIT

# Runs one check, which counts as one. Exit code 77 means skipped; the check's last line says why.
step() {
    local name=$1 rc=0
    shift
    printf '\n== %s\n' "$name"
    "$@" 2>&1 | tee "$log" || rc=${PIPESTATUS[0]}
    case $rc in
        0) passed=$((passed + 1)) ;;
        77) skipped=$((skipped + 1)) reasons+=("$name: $(tail -n 1 "$log")") ;;
        *) failed=$((failed + 1)) reasons+=("$name: FAILED") ;;
    esac
}

# Runs cargo test and adds up what it says of itself, test by test.
tests() {
    local rc=0 line p f s
    printf '\n== tests %s\n' "$*"
    cargo test --locked --no-fail-fast "$@" 2>&1 | tee "$log" || rc=${PIPESTATUS[0]}
    read -r p f s < <(awk '/^test result:/ { for (i = 2; i <= NF; i++) {
        if ($i ~ /^passed/) p += $(i-1); if ($i ~ /^failed/) f += $(i-1); if ($i ~ /^ignored/) s += $(i-1) } }
        END { print p + 0, f + 0, s + 0 }' "$log")
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    while IFS= read -r line; do reasons+=("$line"); done < <(
        sed -n -e 's/^test \(.*\) \.\.\. ignored\(.*\)$/\1: ignored\2/p' -e 's/^test \(.*\) \.\.\. FAILED$/\1: FAILED/p' "$log")
    # A crate that does not compile, or a test process that dies, reports no failed test of its own.
    if [ "$rc" != 0 ] && [ "$f" = 0 ]; then
        failed=$((failed + 1)) reasons+=("cargo test: exit $rc without a failed test; see above")
    fi
    # No test at all would pass, too.
    if [ "$p" = 0 ]; then failed=$((failed + 1)) reasons+=("cargo test: no test ran"); fi
}

# Kafka with TLS is a build of its own: it links the system's OpenSSL, which nothing else does. The whole workspace is
# named, since other features of its dependencies would be others to build; what is built are these tests.
tls() {
    pkg-config --exists openssl 2>/dev/null || scripts/install.sh libssl-dev pkg-config
    step 'clippy, Kafka with TLS' \
        cargo clippy --locked --workspace --features mainspring/kafka-tls,orders/kafka-tls --all-targets -- -D warnings
    tests --workspace --features mainspring/kafka-tls,orders/kafka-tls --test security
}

# Each target of the fuzzer counts as one. It is a short look that begins the same way every time, so that it is a change
# that fails and not chance; `make fuzz` goes farther, and other ways. A build that fails, or a target that never ran, is
# a failure, too.
fuzz() {
    local p f
    printf '\n== fuzzing, ten seconds for each target\n'
    FUZZ_SEED=1 scripts/fuzz.sh all 10 2>&1 | tee "$log" || true
    p=$(grep -c 'nothing found' "$log" || true)
    f=$(($(find fuzz/seeds -mindepth 1 -maxdepth 1 | wc -l) - p))
    passed=$((passed + p)) failed=$((failed + f))
    [ $f = 0 ] || reasons+=("fuzzing: $f targets FAILED")
}

lint() {
    step formatting cargo fmt --all --check
    step clippy cargo clippy --locked --workspace --all-targets -- -D warnings
}

case ${1:-all} in
    all)
        lint
        step invariants scripts/invariants.sh
        # A test that needs the real broker skips itself where there is none. Here there is one, so none may.
        # One that runs already is somebody's, and stays.
        scripts/brokers.sh status | grep -q '^kafka: answers' || started=yes
        step 'the real broker' scripts/brokers.sh up kafka
        export MAINSPRING_REQUIRE_BROKERS=1
        tests --workspace # doc tests included
        tls
        step 'what requests and messages cost' scripts/gates.sh
        fuzz
        tests -p mainspring-observe --features jemalloc --lib profile
        tests -p orders --features jemalloc --test process profiles
        step "the README's sample, outside the repository" scripts/readme.sh
        step documentation env RUSTDOCFLAGS=-Dwarnings cargo doc --locked --workspace --no-deps
        step 'licences, bans, sources' scripts/deny.sh check
        step advisories scripts/deny.sh advisories
        ;;
    quick) tests --workspace --lib --bins ;;
    lint) lint ;;
    *) echo "scripts/test.sh: unknown mode '$1'; use all, quick or lint" >&2; exit 2 ;;
esac

printf '\n'
if [ ${#reasons[@]} != 0 ]; then printf '%s\n' "${reasons[@]}"; fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
