#!/usr/bin/env bash
# Builds and runs the C++ tests. Usage: native_test.sh plain|address|thread; BIN is the virtual environment's bin folder.
# Without GoogleTest it says so and succeeds, so that a machine without it can still run the other tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

kind=$1
bin=${BIN:-$PWD/.venv/bin}
build=build/native-$kind
case $kind in
  plain) sanitize="" ;;
  address | thread) sanitize=$kind ;;
  *) echo "native_test.sh: '$kind' is none of plain, address, thread" >&2 && exit 2 ;;
esac

if ! echo '#include <gtest/gtest.h>' | "${CXX:-c++}" -std=c++20 -fsyntax-only -x c++ - 2>/dev/null; then
  echo "no GoogleTest here (Debian: apt-get install libgtest-dev): the C++ tests ($kind) are not run"
  exit 0
fi

mkdir -p "$build"
log=$build/build.log
echo "building the C++ tests ($kind)"
if ! {
  "$bin/cmake" -S . -B "$build" -G Ninja -DCMAKE_MAKE_PROGRAM="$bin/ninja" -DPython_EXECUTABLE="$bin/python" \
    -DCMAKE_BUILD_TYPE=Debug -DSABOT_NATIVE_TESTS=ON -DSABOT_SANITIZE="$sanitize" &&
    "$bin/cmake" --build "$build"
} >"$log" 2>&1; then
  cat "$log" >&2
  exit 1
fi

# pyarrow's libraries are not instrumented: the same inline symbols in them and in ours are no violation.
export ASAN_OPTIONS=detect_odr_violation=0:strict_string_checks=1${ASAN_OPTIONS:+:$ASAN_OPTIONS}
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1${TSAN_OPTIONS:+:$TSAN_OPTIONS}
"$bin/ctest" --test-dir "$build" --output-on-failure --timeout 120 --no-tests=error --quiet --output-log "$build/test.log" || {
  cat "$build/test.log" >&2
  exit 1
}
grep -E 'tests passed' "$build/test.log" | sed "s/^/C++ tests ($kind): /"
