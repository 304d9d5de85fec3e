#!/usr/bin/env bash
# Clocks: intervals stay right whatever happens to the wall clock, and in a time name space.
. "$(dirname "$0")/lib.sh"
live_host
alone

# has_lines NAME NUMBER: whether that kvmstat has printed so many rows
has_lines() {
	[ "$(wc -l <"$tmp/$1.out")" -ge "$2" ]
}

# counts NAME KVMSTAT...: runs that, with -T u, beside a guest that makes known exits, for ten
# reports; sets begun, in nanoseconds
counts() {
	local name=$1 ended counted in rows
	shift
	start_guest "$name.guest" -d -n 300 -l oh -w
	counted=$pid in=$hold
	begun=$(date +%s%N)
	start "$name" "$@" -H -T u -p "$counted" 0.2
	until_true 60 test -s "$tmp/$name.out"
	echo >&"$in"
	until_true 60 test -s "$tmp/$name.guest.out"
	until_true 60 has_lines "$name" 10
	end "$counted"
	wait "$pid"
	is "$?" 0 "$name: status 0"
	ended=$(date +%s%N)
	rows=$(wc -l <"$tmp/$name.out")
	is "$(cut -f 2- "$tmp/$name.out" | sums /dev/stdin)" "$(expected oh 300 <"$tmp/$name.guest.out")" \
		"$name: all that the guest did"
	[ "$rows" -ge 10 ] && [ $((ended - begun)) -ge $((rows * 200000000)) ]
	ok $? "$name: $rows intervals take no less than $rows intervals"
}

# No machine's clock can be set back further than it has been up for.
read -r up _ </proc/uptime
for offset in $((${up%.*} > 20 ? -10 : -${up%.*} / 2)) 100000; do
	counts "monotonic$offset" unshare --time --monotonic "$offset" --fork --kill-child "$kvmstat"
	awk -v begun="$begun" -v now="$(date +%s)" '$1 > now + 1 || $1 < begun / 1e9 - 1 { exit 1 }' "$tmp/monotonic$offset.out"
	ok $? "monotonic$offset: -T tells the time of day"
done

${CC:-cc} -std=c11 -Wall -Wextra -Werror -O2 -shared -fPIC -o "$tmp/clock.so" "$here/helpers/clock.c"
counts wall env LD_PRELOAD="$tmp/clock.so" ASAN_OPTIONS=verify_asan_link_order=0 "$kvmstat"
like "$(awk 'NR > 1 && ($1 - last > 3000 || last - $1 > 3000) { print "jump" } { last = $1 }' "$tmp/wall.out")" jump \
	"the clock was indeed set, and -T tells it"

# -r has the times that the live reports had, also of a recording that was cut.
start_guest paused -P
for signal in TERM KILL; do
	LD_PRELOAD="$tmp/clock.so" ASAN_OPTIONS=verify_asan_link_order=0 \
		start_kvmstat "$signal" -H -T u -w "$tmp/$signal.dat" 0.2
	until_true 60 has_lines "$signal" 8
	end "$pid" "$signal"
	n=$(wc -l <"$tmp/$signal.out")
	"$kvmstat" -H -T u -r "$tmp/$signal.dat" 0.2 2>"$tmp/err" | head -n "$n" >"$tmp/read"
	is "$(cat "$tmp/read")" "$(cat "$tmp/$signal.out")" "-r after SIG$signal: the times of $n live reports"
done

done_testing
