#!/bin/bash
# Runs the fuzz targets: Clang's libFuzzer with AddressSanitizer and UBSan.
#
#   tools/fuzz.sh [SECONDS [TARGET...]]    each target for so long (default 60), several at once as there are processors
#   tools/fuzz.sh --run FOLDER TARGET OPTION...    one that is built, with options of libFuzzer's own
#
# Inputs that crash it stand in build-sanitize/findings/TARGET. Give such a file to build-sanitize/fuzz/fuzz_TARGET to see it again; when
# it is mended, it belongs into tests/fuzz/corpus/TARGET.
set -euo pipefail
source_folder=$(cd "$(dirname "$0")/.." && pwd)

# run FOLDER TARGET OPTION...: so that it can be repeated. With a given seed libFuzzer still goes by the order in which the file system lists
# the corpus, by the clock (when it reads its own findings again) and by what the code compares, addresses among it; those depend on where
# the kernel puts things, and of the stack on the length of arguments and environment. What remains is the timing of threads: disks have
# theirs, so that ahci, floppy, ide and virtio_device come to cover one thing or another first.
run() {
    local folder=$1 target=$2 fixed=() inputs
    shift 2
    cd "$folder"
    rm -rf "fuzz-work/$target"
    mkdir -p "fuzz-work/$target" "findings/$target"
    ln -sfn "$source_folder/tests/fuzz/corpus" corpus
    mapfile -t inputs < <(LC_ALL=C ls "corpus/$target" | sed "s,^,corpus/$target/,")
    printf '%s,' "${inputs[@]}" | sed 's/,$//' >"fuzz-work/$target.inputs"
    # Some containers do not allow it; the run is as good then, but does not repeat.
    if setarch -R true 2>/dev/null; then fixed=(setarch -R); fi
    # The sanitizers look for their symbolizer in PATH.
    env -i PATH=/usr/bin:/bin ASAN_OPTIONS="${ASAN_OPTIONS:-}" UBSAN_OPTIONS="${UBSAN_OPTIONS:-}" "${fixed[@]}" "fuzz/fuzz_$target" \
        -timeout=30 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 -reload=0 -artifact_prefix="findings/$target/" "$@" \
        -seed_inputs="@fuzz-work/$target.inputs" "fuzz-work/$target"
}

if [[ ${1:-} == --run ]]; then
    shift
    run "$@"
    exit
fi
case ${1:-} in -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
cd "$source_folder"
seconds=${1:-60}
shift || true
[[ $seconds =~ ^[0-9]+$ ]] || { echo "tools/fuzz.sh: '$seconds' is not a number of seconds" >&2; exit 2; }
tools/build.sh sanitize fuzz_targets
targets=("$@")
[[ ${#targets[@]} -gt 0 ]] || mapfile -t targets < <(cd build-sanitize/fuzz && ls | sed -n 's/^fuzz_//p')
failed=0
running=0
for target in "${targets[@]}"; do
    [[ -x build-sanitize/fuzz/fuzz_$target ]] || { echo "tools/fuzz.sh: there is no target $target" >&2; exit 2; }
    ((running++ < $(nproc))) || wait -n || failed=1
    { run build-sanitize "$target" -max_total_time="$seconds" >"build-sanitize/$target.log" 2>&1 ||
        { echo "$target: a finding, see build-sanitize/$target.log and build-sanitize/findings/$target"; false; }; } &
done
while [[ -n $(jobs -p) ]]; do wait -n || failed=1; jobs >/dev/null; done
for target in "${targets[@]}"; do echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "build-sanitize/$target.log") inputs"; done
exit $failed
