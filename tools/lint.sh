#!/bin/bash
# Format, clang-tidy and Clang's thread-safety analysis, all of version 19.
#
#   tools/lint.sh [FILE...]     default: every C++ file of the project (tests are not analysed, only formatted)
#
# Exit code 0 if nothing was found.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ $# -gt 0 ]]; then
    files=("$@")
else
    mapfile -t files < <(git ls-files '*.cpp' '*.hpp')
fi
sources=()
for file in "${files[@]}"; do
    [[ $file == src/*.cpp && $file != *_test.cpp ]] && sources+=("$file")
done
[[ -f build/build.ninja ]] || cmake --preset release >/dev/null

result=0
echo "format: ${#files[@]} files"
clang-format-19 --dry-run --Werror "${files[@]}" || result=1

# The compilation database names g++'s flags: Clang does not know one, and refuses the standard library's headers under another.
mkdir -p build/lint
sed -e 's/ -fno-tree-loop-distribute-patterns//g; s/ -mgeneral-regs-only//g' build/compile_commands.json >build/lint/compile_commands.json
clang_flags=(-Wno-unknown-warning-option -Wno-gnu-statement-expression-from-macro-expansion)
echo "clang-tidy and thread safety: ${#sources[@]} files"
printf '%s\n' "${sources[@]}" |
    xargs -r -P "$(nproc)" -n 4 clang-tidy-19 -p build/lint --quiet --warnings-as-errors='*' --extra-arg=-Wthread-safety \
        "${clang_flags[@]/#/--extra-arg=}" 2>/dev/null || result=1
[[ $result == 0 ]] && echo "nothing found" || echo "findings: see above"
exit $result
