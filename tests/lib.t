#!/usr/bin/env bash
# What the tests say where they cannot run.
. "$(dirname "$0")/lib.sh"
live_host
alone

is "$(CI='' needs bash no-such-program)" "1..0 # SKIP needs no-such-program (package no-such-program)" \
	"a program is missing: which one, and of which package"
is "$(PATH=/none CI='' needs musl-gcc)" "1..0 # SKIP needs musl-gcc (package musl-tools)" \
	"also where that has another name"
is "$(CI=true needs no-such-program; echo more)" "1..1
not ok 1 - needs no-such-program (package no-such-program)" "CI does not accept it"
is "$(needs bash)" "" "nothing is missing: nothing is said"
line=$(grep '&& make check$' "$top/README.md")
is "$(printf '%s\n' "${package[@]}" | grep -vxFf <(tr ' ' '\n' <<<"$line"))" "" "README's command installs them"

is "$(alone)" "" "no guest runs: nothing is said"
start_guest web -P -N -name guest=web1
is "$(CI='' alone)" "1..0 # SKIP a virtual machine is running that is not the tests': web1, process $pid (guest)" \
	"a guest is in the way: its name, and which process it is"
end "$pid"

done_testing
