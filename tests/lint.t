#!/usr/bin/env bash
# The sources are in order: make lint finds nothing.
. "$(dirname "$0")/lib.sh"
needs clang-format clang-tidy cppcheck gcc make mandoc shellcheck

make -s -C "$top" lint >"$tmp/out" 2>&1
is "$?$(cat "$tmp/out")" 0 "make lint"

done_testing
