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

# run FOLDER TARGET OPTION...
run() {
    local folder=$1 target=$2
    shift 2
    local work=$folder/fuzz-work/$target findings=$folder/findings/$target
    rm -rf "$work"
    mkdir -p "$work" "$findings"
    "$folder/fuzz/fuzz_$target" -timeout=30 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 -artifact_prefix="$findings/" "$@" \
        "$work" "$source_folder/tests/fuzz/corpus/$target"
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
