#!/usr/bin/env bash
# What others made, and may have made so on purpose, does not end kvmstat by a signal: see
# fuzz/fuzz.c.
. "$(dirname "$0")/lib.sh"
cd "$top" || exit 1

echo 'int LLVMFuzzerTestOneInput(void); int LLVMFuzzerTestOneInput(void) { return 0; }' |
	clang -fsanitize=fuzzer,address -o "$tmp/fuzzer" -x c - 2>/dev/null ||
	skip_all "needs clang and its libFuzzer (packages clang and libclang-rt-14-dev)"
tests/fuzz/seeds "$tmp/seeds" tests/captures/*.dat
is "$?$(cd "$tmp/seeds" && echo *)" "0format names operands recording subbuf" "seeds for all, in a folder that was not there"
FUZZ_SECONDS=0 tests/fuzz/run >"$tmp/out" 2>&1
is "$?$(grep -v ' inputs, ' "$tmp/out")" 0 "the inputs in tests/fuzz/corpus"
is "$(grep -c ' inputs, ' "$tmp/out")" 5 "of all fuzzers"
for target in subbuf format recording operands names; do
	FUZZ_SECONDS=3 tests/fuzz/run $target >"$tmp/out" 2>&1
	is "$?$(grep -v ' inputs, ' "$tmp/out")" 0 "new ones for three seconds: $(cat "$tmp/out")"
done

done_testing
