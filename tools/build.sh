#!/bin/bash
# Configures a preset of CMakePresets.json if that was not done or the presets are newer, and builds it.
#
#   tools/build.sh PRESET [TARGET...]
set -euo pipefail
cd "$(dirname "$0")/.."
preset=$1
shift
folder=build
[[ $preset == release ]] || folder=build-$preset

if [[ ! -f $folder/build.ninja || CMakePresets.json -nt $folder/CMakeCache.txt ]]; then
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    # Of another compiler the old files are worth nothing, and CMake would lose settings on the way.
    rm -f "$folder/CMakeCache.txt"
    cmake --preset "$preset" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
fi
# A translation unit takes up to 1 GiB: no more jobs than that, or a small machine swaps.
jobs=$(nproc)
memory_gib=$(awk '/MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)
((memory_gib >= jobs)) || jobs=$((memory_gib > 0 ? memory_gib : 1))
cmake --build "$folder" -j "$jobs" ${1:+--target "$@"}
