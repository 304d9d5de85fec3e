#!/usr/bin/env bash
# Clocks: intervals stay right whatever happens to the wall clock, and in a time name space.
. "$(dirname "$0")/lib.sh"
live_host
alone

# counts NAME KVMSTAT...: runs that, with -T u, for 2 s beside a guest that makes known exits
counts() {
	local name=$1 begun ended
	shift
	begun=$(date +%s%N)
	"$@" -H -T u 0.2 10 >"$tmp/$name.out" 2>"$tmp/$name.err" &
	kvm=$!
	children+=("$kvm")
	until_true 10 test -s "$tmp/$name.err" # no virtual machine is running: the first report
	start_guest "$name.guest" -n 300 -l oh -w
	until_true 10 test -s "$tmp/$name.guest.out"
	wait "$kvm"
	is "$?" 0 "$name: status 0"
	ended=$(date +%s%N)
	end "$pid"
	is "$(cut -f 2- "$tmp/$name.out" | sums /dev/stdin)" "$(expected oh 300 <"$tmp/$name.guest.out")" \
		"$name: all that the guest did"
	# A row a report, of those that ended while the guest was there.
	[ "$(wc -l <"$tmp/$name.out")" -ge 5 ] && [ "$(wc -l <"$tmp/$name.out")" -le 9 ]
	ok $? "$name: a report every interval: $(wc -l <"$tmp/$name.out") of 10 have the guest"
	[ $((ended - begun)) -ge 2000000000 ]
	ok $? "$name: ten intervals take no less than ten intervals"
}

# No machine's clock can be set back further than it has been up for.
read -r up _ </proc/uptime
for offset in $((${up%.*} > 20 ? -10 : -${up%.*} / 2)) 100000; do
	counts "monotonic$offset" unshare --time --monotonic "$offset" --fork --kill-child "$kvmstat"
	now=$(date +%s)
	awk -v now="$now" '$1 > now + 1 || $1 < now - 10 { exit 1 }' "$tmp/monotonic$offset.out"
	ok $? "monotonic$offset: -T tells the time of day"
done

${CC:-cc} -std=c11 -Wall -Wextra -Werror -O2 -shared -fPIC -o "$tmp/clock.so" "$here/helpers/clock.c"
counts wall env LD_PRELOAD="$tmp/clock.so" ASAN_OPTIONS=verify_asan_link_order=0 "$kvmstat"
like "$(awk 'NR > 1 && ($1 - last > 3000 || last - $1 > 3000) { print "jump" } { last = $1 }' "$tmp/wall.out")" jump \
	"the clock was indeed set, and -T tells it"

done_testing
