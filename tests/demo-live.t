#!/usr/bin/env bash
# make demo shows three guests that differ, or those of a busy host, and ends with 0.
. "$(dirname "$0")/lib.sh"
live_host
alone
. "$here/helpers/demo.sh"

demo "no guest" env
# Its guests' names can come late; they are the first, second and third row of each table.
rows=$(awk '/ pid vcpu / { usual = / exits /; n = 0 } usual && $3 == "|" && $1 ~ /^[0-9]/ { print ++n, $4, $6, $9, $10 }' <<<"$out")
for row in 'busy 1 [1-9][0-9]{2,} 0 [1-9][0-9]* [1-9][0-9]*' 'idle 2 [0-9]+ [1-9][0-9]* 0 0' 'spins 3 [0-9]+ 0 0 0'; do
	like "$rows" "^${row#* }$" "${row%% *}, by exits, haltx, iox and mmiox: ${row#* }"
done
[ -z "$(find /proc/[0-9]*/fd -lname anon_inode:kvm-vm 2>/dev/null)" ]
ok $? "its guests end with it"

# A busy host: many vCPUs, guests that come and go, and a program that sets kvmstat's tracing off,
# which gives a warning.
start_guest many -P -v 500 -N -name many
start come bash -c 'while :; do "$0" -n 20 -l oh; done' "$guest"
start disturb bash -c 'while :; do
		for file in "$0"/kvmstat.*/tracing_on; do
			if [ -e "$file" ]; then echo 0 >"$file"; fi
		done
		sleep 0.3
	done' "$instances"
demo "a busy host" env
like "$out" "changed or read by another program" "which has warnings"
is "$(awk '/ pid vcpu / { tables++; rows = 0 } $3 == "|" && $2 ~ /^[0-9?]+$/ && ++rows > 20
	END { if (tables < 3) print "tables: " tables + 0 }' <<<"$out")" "" "and tables, none of more than 20 rows"
like "$out" "^ *[0-9]+ +[0-9]+ \|.* many$" "of its guests"

done_testing
