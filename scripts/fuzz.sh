#!/usr/bin/env bash
# Looks for bytes that break a promise: coverage-guided fuzzing with libFuzzer, on the stable toolchain.
#
#   scripts/fuzz.sh [all [SECONDS]]    every target, 60 s each, as many at a time as there are cores
#   scripts/fuzz.sh TARGET [SECONDS]   one target
#   scripts/fuzz.sh TARGET FILE        one input, as printed when a target failed
#   scripts/fuzz.sh build              only builds
#
# FUZZ_SEED begins the chance of all targets, which otherwise differs from run to run.
#
# What is found stays in fuzz/crashes/TARGET; once mended, move it to fuzz/seeds/TARGET, which `cargo test` runs.
# fuzz/corpus holds what earlier runs found worth keeping, and may be deleted.
set -euo pipefail
cd "$(dirname "$0")/.."

mapfile -t all < <(ls fuzz/seeds)
# Nobody waits longer than that for one input, and no input takes more memory.
limits=(-timeout=10 -rss_limit_mb=1024 -max_len=4096 -seed="${FUZZ_SEED:-0}")

command -v c++ >/dev/null || scripts/install.sh g++
host=$(rustc -vV | sed -n 's/^host: //p')
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")/fuzz

# What `cargo fuzz` passes; a build for a named target leaves build scripts and macros without it. One program for all
# targets: FUZZ_TARGET chooses.
build() {
    local llvm
    llvm=$(printf -- ' -C llvm-args=-sanitizer-coverage-%s' level=4 inline-8bit-counters pc-table trace-compares)
    RUSTFLAGS="-C force-frame-pointers=yes -C passes=sancov-module$llvm -C codegen-units=1" \
        CARGO_TARGET_DIR=$target CARGO_INCREMENTAL=0 cargo build --quiet --locked --profile fuzz --target "$host" \
        --package mainspring-fuzz --features libfuzzer --bin fuzz
}

# run TARGET SECONDS: from the seeds and what was kept; fails, and says how to see it again, when something was found.
run() {
    local name=$1 seconds=$2 log scratch rc=0 found
    log=$(mktemp) scratch=$(mktemp -d)
    mkdir -p "fuzz/corpus/$name" "fuzz/crashes/$name"
    TMPDIR=$scratch FUZZ_TARGET=$name "$target/$host/fuzz/fuzz" "fuzz/corpus/$name" "fuzz/seeds/$name" \
        "${limits[@]}" -max_total_time="$seconds" -artifact_prefix="fuzz/crashes/$name/" -print_final_stats=1 \
        >"$log" 2>&1 || rc=$?
    rm -rf "$scratch"
    if [ $rc = 0 ]; then
        awk -v name="$name" '/^Done/ { runs = $2; seconds = $5 } / cov: / { for (i = 1; i < NF; i++)
            if ($i == "cov:") cov = $(i + 1) }
            END { printf "%-8s nothing found: %d inputs in %d s, %d edges of code reached\n", name, runs, seconds, cov }' "$log"
    else
        # What was promised, and not what the fuzzer makes of it.
        grep -a -A2 -m1 'panicked at' "$log" || tail -n 20 "$log"
        found=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
        echo "$name: FOUND something (exit $rc); see it again with: scripts/fuzz.sh $name ${found:-}"
    fi
    rm -f "$log"
    return $rc
}

name=${1:-all}
if [ "$name" != build ] && [ "$name" != all ] && [[ " ${all[*]} " != *" $name "* ]]; then
    echo "scripts/fuzz.sh: no target '$name'; there are ${all[*]}" >&2
    exit 2
fi
build
case $name in
    build) ;;
    all)
        at_once=$(nproc)
        failed=0
        for name in "${all[@]}"; do
            while [ "$(jobs -pr | wc -l)" -ge "$at_once" ]; do wait -n || failed=1; done
            run "$name" "${2:-60}" &
        done
        while [ -n "$(jobs -p)" ]; do wait -n || failed=1; done
        exit $failed
        ;;
    *)
        if [ -f "${2:-}" ]; then
            FUZZ_TARGET=$name exec "$target/$host/fuzz/fuzz" "${limits[@]}" "$2"
        fi
        run "$name" "${2:-60}"
        ;;
esac
