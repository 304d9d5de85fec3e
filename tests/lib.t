#!/usr/bin/env bash
# What the tests say where they cannot run.
. "$(dirname "$0")/lib.sh"

is "$(LEFT_OUT= CI= needs bash no-such-program)" "1..0 # SKIP needs no-such-program (package no-such-program)" \
	"a program is missing: which one, and of which package"
is "$(LEFT_OUT= PATH=/none CI= needs musl-gcc)" "1..0 # SKIP needs musl-gcc (package musl-tools)" \
	"also where that has another name"
is "$(CI=true needs no-such-program 2>/dev/null; echo more)" "1..1
not ok 1 - needs no-such-program (package no-such-program)" "CI does not accept it"
is "$(needs bash)" "" "nothing is missing: nothing is said"
line=$(grep '&& make check$' "$top/README.md")
is "$(printf '%s\n' "${package[@]}" | grep -vxFf <(tr ' ' '\n' <<<"$line"))" "" "README's command installs them"

is "$(LEFT_OUT= CI=true skip_here "needs a moon"; echo more)" "1..0 # SKIP needs a moon" "but what no package has"
is "$(LEFT_OUT=$tmp/left skip_check "needs a moon" "a check" && cat "$tmp/left")" "ok $((tests + 1)) - a check # SKIP needs a moon
needs a moon	lib.t" "a check that is left out is noted for the end"

[ "$(id -u)" -eq 0 ] && has_device /dev/kvm || {
	skip_check "needs root and /dev/kvm" "a guest in the way"
	done_testing
}
[ -z "$(alone)" ] || skip_here "needs that no other guest runs"
is "$(alone)" "" "no guest runs: nothing is said"
start_guest web -P -N -name guest=web1
is "$(LEFT_OUT= CI= alone)" "1..0 # SKIP a virtual machine is running that is not the tests': web1, process $pid (guest)" \
	"a guest is in the way: its name, and which process it is"
end "$pid"

done_testing
