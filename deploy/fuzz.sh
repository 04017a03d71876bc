#!/bin/bash
# Coverage-guided fuzzing with libFuzzer on the stable toolchain. The targets are programs of fuzz/, built into
# target/fuzz apart from everything else, because all of it is instrumented.
#
#   deploy/fuzz.sh [TARGET...]        run these, or all, for FUZZ_SECONDS (20) each, as many at once as there are cores
#   deploy/fuzz.sh --lint             format, lints and licences of fuzz/
#   deploy/fuzz.sh --merge [TARGET...] add what the finds reach beyond the corpus to it
#
# Runs begin with the corpus in fuzz/corpus/TARGET and what earlier runs left in target/fuzz/finds/TARGET. What breaks
# a target is kept in target/fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${FUZZ_SECONDS:-20}
size_max=2048 # bytes of an input
files_max=60  # of a corpus
manifest=fuzz/Cargo.toml
target_dir=${CARGO_TARGET_DIR:-target}/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')
bin=$target_dir/$host/release
all=(parse worker config)

# No sanitizer: the code is safe Rust, whose panics, overflows and assertions are what is looked for. Coverage is
# counted per edge, and compared values are told to the fuzzer.
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
flags+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
flags+=" -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"

build() {
    # With --target the flags are for what is built for it and not for build scripts.
    RUSTFLAGS=$flags with_cargo build --release --target "$host" --target-dir "$target_dir"
}

with_cargo() {
    cargo "$1" --quiet --locked --manifest-path $manifest "${@:2}" && return
    echo "If Cargo.lock of fuzz/ is behind: cargo update --workspace --manifest-path $manifest" >&2
    return 1
}

lint() {
    cargo fmt --manifest-path $manifest --check
    # In the workspace's directory, where most of it was checked already.
    with_cargo clippy --all-targets --target-dir "${CARGO_TARGET_DIR:-target}" -- -D warnings
    cargo deny --log-level error --manifest-path $manifest --config deny.toml check licenses bans sources
    local big
    big=$(find fuzz/corpus -type f -size +${size_max}c)
    [ -z "$big" ] || { echo "over $size_max bytes: $big"; return 1; }
    for target in "${all[@]}"; do
        [ "$(find "fuzz/corpus/$target" -type f | wc -l)" -le $files_max ] ||
            { echo "fuzz/corpus/$target has over $files_max files; make it anew with deploy/fuzz.sh --merge"; return 1; }
    done
}

options() {
    echo "-max_len=$size_max -timeout=5 -rss_limit_mb=2048"
    if [ -f "fuzz/$1.dict" ]; then echo "-dict=fuzz/$1.dict"; fi
}

run() {
    local target=$1 finds=$target_dir/finds/$1 log=$target_dir/$1.log status=0
    mkdir -p "$finds" "$target_dir/artifacts"
    # shellcheck disable=SC2046 # several words
    "$bin/$target" $(options "$target") -max_total_time="$seconds" -print_final_stats=1 \
        -artifact_prefix="$target_dir/artifacts/$target-" "$finds" "fuzz/corpus/$target" >"$log" 2>&1 || status=$?
    if [ $status -eq 0 ]; then
        echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") executions," \
            "$(find "$finds" -type f | wc -l) finds"
        return
    fi
    grep -A3 -m1 -E 'panicked|ERROR: libFuzzer' "$log" || tail -n 20 "$log"
    local artifact
    artifact=$(sed -n 's/.*Test unit written to //p' "$log" | head -n 1)
    echo "$target: failed with status $status; the whole log is in $log. To see it again: $bin/$target $artifact"
    return 1
}

# Of all inputs a few that reach together what all of them reach.
merge() {
    local target=$1 merged
    merged=$(mktemp -d)
    # shellcheck disable=SC2046 # several words
    "$bin/$target" $(options "$target") -set_cover_merge=1 -use_counters=0 "$merged" "fuzz/corpus/$target" \
        "$target_dir/finds/$target" 2>"$target_dir/$target.log"
    echo "$target: $(find "$merged" -type f | wc -l) of $(find "fuzz/corpus/$target" "$target_dir/finds/$target" -type f | wc -l)"
    rm -rf "fuzz/corpus/$target"
    mv "$merged" "fuzz/corpus/$target"
}

case ${1:-} in
    --lint) lint ;;
    --run-built) run "$2" ;;
    *)
        action=run
        if [ "${1:-}" = --merge ]; then
            action=merge
            shift
        fi
        targets=("${@:-${all[@]}}")
        build
        if [ $action = merge ]; then
            for target in "${targets[@]}"; do merge "$target"; done
        else
            printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} "$PWD/deploy/fuzz.sh" --run-built {}
        fi
        ;;
esac
