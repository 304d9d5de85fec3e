#!/usr/bin/env bash
# Numbers that come into use again: what is told of a process or thread is not told of the next
# one that has its id.
. "$(dirname "$0")/lib.sh"
live_host
. "$here/helpers/pcp.sh"
has_pcp
alone
own_name

last_id=/proc/sys/kernel/ns_last_pid

# next_id ID: the next process or thread of the host has it, if nobody is faster
next_id() {
	echo $(($1 - 1)) >$last_id
}

# start_as ID NAME OPTIONS...: starts a guest whose process has that id; sets pid, and hold as start
start_as() {
	local wanted=$1 name=$2 last
	shift 2
	read -r last <$last_id
	mkfifo "$tmp/$name.in"
	exec {hold}<>"$tmp/$name.in"
	for _ in {1..1000}; do
		next_id "$wanted"
		(read -r && exec "$guest" "$@") <"$tmp/$name.in" >"$tmp/$name.out" 2>"$tmp/$name.err" &
		pid=$!
		[ "$pid" != "$wanted" ] || break
		end "$pid" KILL
	done
	echo "$last" >$last_id
	children+=("$pid")
	echo >&"$hold"
	until_true 10 grep -qs '^guest' "$tmp/$name.err"
	[ "$pid" = "$wanted" ]
}

# threads PID: those that it made itself, in order, without KVM's own one (kvm-nx-lpage-recovery)
threads() {
	grep -L '^kvm-' "/proc/$1/task"/*/comm 2>/dev/null | cut -d / -f 5 | grep -vx "$1" | sort -n | xargs
}

# has_threads PID COUNT
has_threads() {
	[ "$(threads "$1" | wc -w)" -eq "$2" ]
}

# start_with_threads ID NAME OPTIONS...: starts a guest of -d and lets it go; its first thread but the
# main one has that id.  Sets pid, and out, the file that it writes to.
start_with_threads() {
	local wanted=$1 name=$2 try last
	shift 2
	for try in {1..200}; do
		start_guest "$name.$try" -d "$@"
		out=$tmp/$name.$try.out
		read -r last <$last_id # so that the next try is another process
		next_id "$wanted"
		echo >&"$hold"
		until_true 5 has_threads "$pid" 2
		echo "$last" >$last_id
		[ "$(threads "$pid" | cut -d ' ' -f 1)" != "$wanted" ] || return 0
		end "$pid" KILL
	done
	return 1
}

# of PID FILE: the sums of its rows
of() {
	grep "^$1	" "$2" | cut -f1-11 | sums /dev/stdin
}

# names PID FILE: the names in its rows, in order of report
names() {
	awk -F'\t' -v pid="$1" '$1 == pid { print $12 }' "$2" | uniq | xargs
}

# ended PID: that the child has ended
ended() {
	! kill -0 "$1" 2>/dev/null || grep -qs '^State:.*Z' "/proc/$1/status"
}

# A guest ends; within the same interval, another one's process has its id, and its machine the
# same descriptor: debugfs has a directory of the same name.  It runs from the next report on.
start_guest old -d -n 200 -l oh -s 1000 -w -N -name guest=old
old=$pid old_in=$hold
start_guest other -v 1 -n 0 -l oh -s 1000 -N -name guest=other
other=$pid
start_kvmstat all -Hn 1
all=$pid
start_kvmstat only -Hn -p "$old" 1
declare -A of_p=([only]=$pid)
start_kvmstat recorded -Hn -p "$old" -w "$tmp/w.dat" 1 100
of_p[recorded]=$pid
start_kvmstat both -Hn -p "$old,$other" 1
both=$pid
start_kvmstat metrics -Hn -m 1
metrics=$pid
echo >&"$old_in"
until_true 10 test -s "$tmp/old.out"
want=$(expected oh 200 <"$tmp/old.out")
# Just after a report, so that all of this is in one interval.
reports() {
	[ "$(grep -c "^$other	" "$tmp/all.out")" -ge "$1" ]
}
until_true 5 reports $(($(grep -c "^$other	" "$tmp/all.out") + 1))
end "$old" KILL
start_as "$old" new -v 2 -d -n 300 -l oi -w -N -name guest=new
ok $? "another process has the id of the one that ended"
for kvm in only recorded; do
	until_true 5 ended "${of_p[$kvm]}"
	ok $? "-p ends when its process has ended ($kvm)"
	end "${of_p[$kvm]}"
	is "$status$(cat "$tmp/$kvm.err")" 0 "with status 0, and no word"
	is "$(of "$old" "$tmp/$kvm.out")" "$want" "the process's counts are in its rows"
	is "$(names "$old" "$tmp/$kvm.out")" old "and no row is of the new one"
done
is "$("$kvmstat" -Hn -r "$tmp/w.dat" | cut -f1,2,12)" "$old	0	old" "nor any of the recording"
n=$(grep -c "^$other	" "$tmp/all.out")
until_true 5 reports $((n + 2)) # the interval of the end is over
echo >&"$hold"
until_true 10 test -s "$tmp/new.out"
until_true 5 reports $((n + 4))
info -f mmv.kvmstat.exits mmv.kvmstat.name >"$tmp/info" 2>&1
end "$all"
end "$both"
end "$metrics"
grep '	old$' "$tmp/all.out" >"$tmp/rows"
is "$(of "$old" "$tmp/rows")" "$want" "without -p: the old guest's counts, under its name"
grep '	new$' "$tmp/all.out" >"$tmp/rows"
is "$(of "$old" "$tmp/rows")" "$(expected oi 300 <"$tmp/new.out")" "the new guest's counts, under its name"
is "$(names "$old" "$tmp/all.out")" "old new" "and each name is there when its guest was"
is "$(names "$old" "$tmp/both.out")" old "-p of two: nothing of the new process"
is "$(of "$old" "$tmp/both.out")" "$want" "but all of the old one"
is "$(tail -n 1 "$tmp/both.out" | cut -f 1)" "$other" "and it goes on with the other"
is "$(cat "$tmp/both.err")" "" "and says nothing"
is "$(grep -o "$old/[01]\"\] value [^ ]*" "$tmp/info" | sort)" \
	"$(expected oi 300 <"$tmp/new.out" | awk -F'\t' -v q='"' '
		{ print $1 "/" $2 q "] value " q "new" q; print $1 "/" $2 q "] value " $3 }' | sort)" \
	"-m: the new guest's counters begin at 0, under its name"
end "$pid" KILL

# The same again, all within one interval: events are those of the guest whose machine made them.
start_guest first -d -v 2 -n 200 -l oh -s 500 -w -N -name guest=first
first=$pid first_in=$hold
start_kvmstat within -Hn 4 2
within=$pid
echo >&"$first_in"
until_true 10 test -s "$tmp/first.out"
end "$first" KILL
start_as "$first" second -v 2 -n 300 -l oi -w -N -name guest=second
second=$pid
until_true 10 test -s "$tmp/second.out"
wait "$within"
is "$?$(cat "$tmp/within.err")" 0 "two guests of one id within an interval: status 0"
is "$(of "$first" "$tmp/within.out")" \
	"$({ expected oh 200 <"$tmp/first.out"; expected oi 300 <"$tmp/second.out"; } | sums /dev/stdin)" \
	"the rows have what both did"
is "$(grep "^$first	" "$tmp/within.out" | tail -n 2 | cut -f 2,12 | xargs)" "0 second 1 second" \
	"and then the name of the one that is there"
end "$second" KILL

# A process of -p that simply ends.
start_guest ends -d -n 200 -l oh -s 1000
ends=$pid ends_in=$hold
start_kvmstat with_p -H -p "$ends" 0.5 1000
with_p=$pid
echo >&"$ends_in"
until_true 5 ended "$with_p"
ok $? "-p ends when its process ended by itself"
end "$with_p"
is "$status$(cat "$tmp/with_p.err")" 0 "with status 0"
is "$(of "$ends" "$tmp/with_p.out")" "$(expected oh 200 <"$tmp/ends.out")" "after the report of that interval"
"$kvmstat" -p "$ends" 1 1 >"$tmp/out" 2>&1
is $? 2 "and one that is not there at the start is an error, as before"

# Threads.  One guest's have ended, while it lives on: debugfs tells their ids still.  Another guest's
# threads have these ids, of which that of the first one's vCPU 1 is vCPU 0's now.
threads_reused() {
	local name=$1 options=$2 first first_out want
	start_guest "$name.first" -d -v 3 -n 300 -l oh -s 1000 -w
	first=$pid first_out=$tmp/$name.first.out
	echo >&"$hold"
	until_true 5 has_threads "$first" 3
	# shellcheck disable=SC2046 # a list
	set -- $(threads "$first")
	until_true 10 test -s "$first_out"
	[ "$options" = lives ] || end "$first" KILL
	start_with_threads "$2" "$name.second" -v 2 -n 200 -l oih -s 1000 -w
	ok $? "$name: threads have the ids of another guest's"
	until_true 10 test -s "$out"
	{
		expected oh 300 <"$first_out"
		expected oih 200 <"$out"
	} | sort -n -k1,1 -k2,2 >"$tmp/$name.want"
	ours="^($first|$pid)	"
	ends=("$first" "$pid")
}
for first in lives ended; do
	start_kvmstat "short.$first" -H 0.1
	short=$pid
	start_kvmstat "long.$first" -H 8 1
	long=$pid
	threads_reused "$first" "$first"
	start_kvmstat "late.$first" -H 0.1
	late=$pid
	all_reported "short.$first" "$(cat "$tmp/$first.want")"
	next_reports "late.$first" "${ends[1]}"
	end "$short"
	end "$late"
	wait "$long"
	is "$?$(cat "$tmp/long.$first.err")" 0 "all within an interval, if it took no more than 8 s: status 0"
	for kvm in short long; do
		is "$(grep -E "$ours" "$tmp/$kvm.$first.out" | sums /dev/stdin)" "$(cat "$tmp/$first.want")" \
			"$kvm interval: each guest has its own counts (the first one $first)"
	done
	is "$(grep -E "$ours" "$tmp/late.$first.out" | sums /dev/stdin | awk -F'\t' '$3 + $10 || $2 == "?"')" "" "and a later kvmstat counts none"
	for p in "${ends[@]}"; do
		end "$p" KILL
	done
done

# A process has the id of a thread that ran another guest's vCPU.
start_kvmstat process -Hn 0.1
kvm=$pid
start_guest threaded -d -v 2 -n 300 -l oh -s 1000 -w -N -name guest=threaded
threaded=$pid
echo >&"$hold"
until_true 5 has_threads "$threaded" 2
id=$(threads "$threaded" | cut -d ' ' -f 2)
until_true 10 test -s "$tmp/threaded.out"
start_as "$id" alone -v 2 -n 200 -l oi -w -N -name guest=alone
ok $? "a process has the id of another one's thread"
until_true 10 test -s "$tmp/alone.out"
next_reports process "$id"
end "$kvm"
is "$(of "$threaded" "$tmp/process.out")" "$(expected oh 300 <"$tmp/threaded.out")" "the other's counts are its own"
is "$(of "$id" "$tmp/process.out")" "$(expected oi 200 <"$tmp/alone.out")" "and so are the process's"
is "$(names "$id" "$tmp/process.out")" alone "under its name"
end "$id" KILL
end "$threaded" KILL
end "$other" KILL
until_true 2 nothing_left
ok $? "nothing is left"

done_testing
