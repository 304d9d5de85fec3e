#!/usr/bin/env bash
# -r of files that were made to cost much: in little memory, in time that grows with their size,
# with an end, and with what is true of others; see helpers/hostile.pl.
. "$(dirname "$0")/lib.sh"

case $kvmstat in
*/sanitized/*) memory=unlimited ;; # they need a lot themselves
*) memory=48000 ;;
esac

traced=yes
has strace || traced=no

# make FILE KIND [NUMBER]
make() {
	perl "$here/helpers/hostile.pl" "${@:2}" >"$tmp/$1"
}

# read_file FILE WORDS...: -H -r of it, and WORDS, in so many KiB of memory in all, the program's included;
# sets status, and milliseconds to its CPU time
read_file() {
	local TIMEFORMAT='%3U %3S' file=$1 user system
	shift
	{ time (ulimit -v "$memory" && "$kvmstat" -H -r "$tmp/$file" "$@" >"$tmp/out" 2>"$tmp/err"); } 2>"$tmp/time"
	status=$?
	read -r user system < <(tail -n 1 "$tmp/time")
	milliseconds=$((10#${user/./} + 10#${system/./}))
}

# refused WHAT WHY FILE WORDS...: that it ends with status 1 and one line, which matches
refused() {
	local what=$1 why=$2
	shift 2
	read_file "$@"
	is "$status" 1 "$what: refused"
	like "$(cat "$tmp/err")" "^kvmstat: $tmp/$1: $why" "with one line that says why"
	is "$(wc -l <"$tmp/err")" 1 "and no other"
}

# reads_once FILE WHAT: that -r reads no byte twice, and not one a call
reads_once() {
	[ $traced = yes ] || return
	strace -qq -e trace=read,pread64 -o "$tmp/trace" "$kvmstat" -r "$tmp/$1" >/dev/null 2>&1
	[ "$(awk '{ n += $NF } END { print n < '"$(stat -c %s "$tmp/$1")"' + 2 ^ 20 && NR < n / 2000 }' "$tmp/trace")" = 1 ]
	ok $? "$2: each byte is read once, and not one a call"
}

make names names 300
reads_once names "19 MB of names"

make tiny tiny 64
refused "a million CPUs with 13 bytes each" 'byte [0-9]+: sub-buffers of more CPUs than' tiny
make large large 200
refused "200 CPUs with sub-buffers of 512 KiB" 'byte [0-9]+: sub-buffers of more CPUs than' large

make symbols symbols 3600
make few symbols 36
read_file few -e vmexit
few=$milliseconds
read_file symbols -e vmexit
is "$status$(wc -l <"$tmp/out")" 0120000 "120000 rows with 3600 names of reasons"
[ "$milliseconds" -lt $((few * 3 + 20)) ]
ok $? "in $milliseconds ms, with 36 of them in $few ms"

make formats formats 100
read_file formats
is "$status$(cut -f 1-4 "$tmp/out")" $'01\t0\t1\t1' "six million formats"
reads_once formats "52 MB of them"

make quiet quiet
refused "25 KB with hours between events" 'more lines than it has events for .give a longer interval.' quiet 0.01
[ "$(stat -c %s "$tmp/out")" -lt 100000000 ]
ok $? "after $(stat -c %s "$tmp/out") bytes of reports"

# What a recording has many of takes more, but so do its events.
[ "$memory" = unlimited ] || memory=300000
make keys keys 2000
read_file keys -e ioport
is "$status$(wc -l <"$tmp/out")" 02000000 "two million keys, a row each"
is "$(cut -f 4 "$tmp/out" | awk '{ n += $1 } END { print n }')" 2000000 "each counts"

# A tenant's threads, guests and vCPUs do not make a recording unreadable, nor another's counts wrong.
make threads threads 160000
read_file threads
is "$status" 0 "160000 threads: reported"
is "$(cut -f 1-4,7 "$tmp/out")" "$(printf '%s\t%s\t%s\t%s\t%s\n' 1000 0 160000 160000 0 \
	2000 0 10 10 0 2000 1 10 0 10)" "and the other guest's counts are exact"
make guests guests 40000
read_file guests
is "$status$(cut -f 1-3 "$tmp/out" | tail -n 1)" $'040000\t0\t1' "40000 guests: reported"
is "$(awk '{ n += $3 } END { print n }' "$tmp/out")" 40000 "and each exit counts"

# What would take more than a host may have to spare is refused.
if [ "$memory" != unlimited ]; then
	memory=unlimited
	make processes processes 1000000
	read_file processes
	is "$status$(cat "$tmp/err")" "1kvmstat: out of memory" \
		"8 MB that stand for a million guests with long names: refused"
	read_file processes -V
	is "$status" 0 "and that is a limit of -r alone"
fi

done_testing
