#!/usr/bin/env bash
# What kvmstat counts of live guests is what they did, by KVM's own statistics.
. "$(dirname "$0")/lib.sh"
live_host
alone
needs pgrep strace

start_kvmstat all -H 0.1
all=$pid
start_kvmstat other -H 0.25
other=$pid

"$guest" -v 2 -n 500 -l omh >"$tmp/one" 2>/dev/null
want=$(expected omh 500 <"$tmp/one")
all_reported all "$want"
is "$(sums "$tmp/all.out" | grep "^$(cut -f1 "$tmp/one" | head -n 1)	")" "$want" \
	"a guest of two vCPUs: sums over the reports are KVM's statistics"

# Several at a time, of one vCPU and more, that start and end while others run, one
# of them with threads that change CPU all the time.
: >"$tmp/want"
"$guest" -v 3 -M -n 700 -l oomh >"$tmp/moving" 2>/dev/null &
for i in 1 2 3 4 5; do
	"$guest" -v "$i" -n 300 -l rwo >"$tmp/short$i" 2>/dev/null
done
wait $!
{
	expected oomh 700 <"$tmp/moving"
	for i in 1 2 3 4 5; do
		expected rwo 300 <"$tmp/short$i"
	done
} >>"$tmp/want"
all_reported all "$(cat "$tmp/want")"
all_reported other "$(cat "$tmp/want")"
while IFS=$'\t' read -r p _; do
	sums "$tmp/all.out" | grep "^$p	"
done < <(cut -f1 "$tmp/want" | uniq) >"$tmp/got"
is "$(cat "$tmp/got")" "$(cat "$tmp/want")" \
	"guests that start, end, and move between CPUs: each row has KVM's figures"

end "$all"
end "$other"
is "$(sums "$tmp/other.out")" "$(sums "$tmp/all.out")" "two kvmstats at a time both count everything"
but_late "$tmp/all.err"
is "$(cat "$tmp/all.err")" "$(yes 'kvmstat: no virtual machine is running' |
	head -n "$(wc -l <"$tmp/all.err")")" "nothing is lost, and no error said"

# Only what the columns need is enabled.
start_guest idle -P
idle=$pid
start_kvmstat events 60
enabled=$(cd "$instances/kvmstat.$pid/events" && grep -l 1 ./*/*/enable | cut -d/ -f2,3 | xargs)
if software_backend; then
	want='kvm/kvm_emulate_insn kvm/kvm_inj_virq kvm/kvm_userspace_exit task/task_newtask'
else
	want='kvm/kvm_emulate_insn kvm/kvm_exit kvm/kvm_inj_virq kvm/kvm_mmio task/task_newtask'
	# Kernels that can run SEV-ES guests tell these guests' reasons by an event of its own.
	[ ! -d "$instances/kvmstat.$pid/events/kvm/kvm_vmgexit_enter" ] || want=${want/mmio /mmio kvm/kvm_vmgexit_enter }
fi
is "$enabled" "$want" "only the events that the columns need are enabled"
end "$pid"
end "$idle"

# One thread that runs two vCPUs: where no event tells which, none is guessed.
start_kvmstat turns -H 0.1
turns=$pid
start_guest turns_guest -1 -v 2 -n 3000 -w
turns_guest=$pid
until_true 20 test -s "$tmp/turns_guest.out"
next_reports turns "$turns_guest"
end "$turns_guest"
end "$turns"
got=$(sums "$tmp/turns.out" | awk -F'\t' -v OFS='\t' '{ print $2, ($3 > 0) }' | sort)
if software_backend; then
	is "$got" $'0\t0\n1\t0\n?\t1' "one thread for two vCPUs, and nothing tells: the row ?"
	is "$(sums "$tmp/turns.out" | cut -f2- | grep '^?')" \
		"$(expected omh 3000 <"$tmp/turns_guest.out" | awk -F'\t' -v OFS='\t' '
			{ for (i = 3; i <= 11; i++) s[i] += $i }
			END { line = "?"; for (i = 3; i <= 11; i++) line = line OFS s[i]; print line }')" \
		"and that row has all that both did"
else
	is "$got" $'0\t1\n1\t1' "one thread for two vCPUs: events tell which"
fi

# -p: the others' events are never recorded.
start_guest mine -v 2 -d -n 2000 -l oh
mine=$pid mine_in=$hold
start_guest others -n 0 -l oh -s 100
others=$pid
start_kvmstat only -H -p "$mine" 0.1
only=$pid
is "$(cat "$instances/kvmstat.$only/options/event-fork")" 1 "-p: threads to come are traced too"
is "$(xargs <"$instances/kvmstat.$only/set_event_pid")" "$mine" "-p: and no other process's"
echo >&"$mine_in"
wait "$mine"
want=$(expected oh 2000 <"$tmp/mine.out")
all_reported only "$want"
end "$only"
is "$(sums "$tmp/only.out")" "$want" \
	"-p: the process's threads, also later ones, and no other's, are counted"
end "$others"

# Stopped, kvmstat is late; its reports are not.
start_guest steady -n 0 -l oh -s 1000
steady=$pid
start_kvmstat late -b 8192 -H -T u 0.5 9
late=$pid
until_true 5 test -s "$tmp/late.out"
kill -STOP "$late"
sleep 2.5
kill -CONT "$late"
wait "$late"
is "$(wc -l <"$tmp/late.out")" 9 "stopped for 2.5 s: no report is missing"
awk -F'\t' 'NR > 1 && ($1 - last < 0.499 || $1 - last > 0.501) { bad = 1 } { last = $1 }
	END { exit bad }' "$tmp/late.out"
ok $? "and each ends half a second after the one before"
median=$(cut -f4 "$tmp/late.out" | sort -n | sed -n 5p)
awk -F'\t' -v m="$median" '$4 < m * 0.4 || $4 > m * 2 { bad = 1 } END { exit bad }' "$tmp/late.out"
ok $? "and each has its own counts: a steady guest's are alike ($(cut -f4 "$tmp/late.out" | xargs))"

# late_end NAME KVMSTAT SECONDS: stops that kvmstat for so long, and ends it, as another guest runs meanwhile
late_end() {
	until_true 10 test -s "$tmp/$1.out"
	kill -STOP "$2"
	"$guest" -l oh -n 100 >"$tmp/counted.out"
	sleep "$3"
	kill "$2"
	kill -CONT "$2"
	wait "$pid"
	status=$?
}

# A signal does not drop the intervals that ended before it came, late as kvmstat may be.
start ended "$kvmstat" -H 0.2
late_end ended "$pid" 0.4
is "$status$(cat "$tmp/ended.err") $(sums "$tmp/ended.out" | grep -v "^$steady	")" "143 $(expected oh 100 <"$tmp/counted.out")" \
	"SIGTERM to a kvmstat that is late: nothing is missing"
start slow strace -qq -o /dev/null -e trace=write -e inject=write:delay_enter=400000 "$kvmstat" -H 0.2
until_true 10 test -s "$tmp/slow.out"
late_end slow "$(pgrep -P "$pid")" 4
like "$(cat "$tmp/slow.err")" '^kvmstat: ended by a signal: [1-9][0-9]* reports are missing \(kvmstat was that late\)$' \
	"what would take longer is not dropped without a word"
end "$steady"

done_testing
