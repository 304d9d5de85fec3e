#!/usr/bin/env bash
# -c: run% and wait% are what the scheduler says of the vCPUs' threads.
. "$(dirname "$0")/lib.sh"
live_host
alone

# thread PID VCPU: of a guest of -T
thread() {
	grep -lx "CPU $2/KVM" "/proc/$1/task"/*/comm | cut -d / -f 5
}

# times PID VCPU: a line of the nanoseconds that it ran and waited, and those since 1970
times() {
	local tid
	tid=$(thread "$1" "$2")
	echo "$(cut -d ' ' -f 1,2 "/proc/$1/task/$tid/schedstat") $(date +%s%N)"
}

# is_share GOT COLUMN BEFORE AFTER NAME: a share in per cent, and what times() said around it
is_share() {
	local wanted
	wanted=$(printf '%s\n' "$3" "$4" | awk -v i="$2" '
		{ time[NR] = $i; at[NR] = $3 }
		END { printf "%.1f", (time[2] - time[1]) * 100 / (at[2] - at[1]) }')
	awk -v got="$1" -v wanted="$wanted" 'BEGIN { exit !(got >= wanted - 5 && got <= wanted + 5) }'
	ok $? "$5: $1, the scheduler says $wanted"
}

# share PID VCPU FIELD FILE
share() {
	awk -F'\t' -v pid="$1" -v vcpu="$2" -v field="$3" '$1 == pid && $2 == vcpu { print $field }' "$4"
}

# Two that share a CPU, the first with three times as much of it, one that sleeps most of the time,
# and one that is paused.
start_guest one -T -l x -n 0
one=$pid
start_guest two -T -l x -n 0
two=$pid
start_guest idle -T -l oh -s 20000 -n 0
idle=$pid
start_guest paused -P -v 2
paused=$pid
until_true 5 thread "$one" 0 >"$tmp/thread"
until_true 5 thread "$two" 0 >"$tmp/thread"
taskset -pc 0 "$(thread "$one" 0)" >"$tmp/thread"
taskset -pc 0 "$(thread "$two" 0)" >"$tmp/thread"
renice -n 5 -p "$(thread "$two" 0)" >"$tmp/thread"
sleep 0.2
start_kvmstat both -cH 4 1
before=$(times "$one" 0)
before_two=$(times "$two" 0)
before_idle=$(times "$idle" 0)
wait "$pid"
is $? 0 "-c"
after=$(times "$one" 0)
after_two=$(times "$two" 0)
after_idle=$(times "$idle" 0)
out=$tmp/both.out
is_share "$(share "$one" 0 12 "$out")" 1 "$before" "$after" "run%, of two that share a CPU"
is_share "$(share "$one" 0 13 "$out")" 2 "$before" "$after" "wait%"
is_share "$(share "$two" 0 12 "$out")" 1 "$before_two" "$after_two" "run%, of the other one"
is_share "$(share "$idle" 0 12 "$out")" 1 "$before_idle" "$after_idle" "run%, of one that sleeps"
is "$(cut -f 1,2,12-14 "$out" | grep "^$paused")" "$paused	0	0.0	0.0	still
$paused	1	0.0	0.0	still" "a vCPU that never ran"
is "$(share "$one" 0 14 "$out") $(share "$two" 0 14 "$out")" "spins spins" "the states of two that share a CPU"
is "$(share "$idle" 0 14 "$out" | grep -vx idle | grep -vx busy)" "" "the state of one that sleeps"
both=$(echo "$(share "$one" 0 12 "$out") $(share "$one" 0 13 "$out")" | tr ' ' +)
awk -v both="$both" 'BEGIN { split(both, n, "+"); exit !(n[1] + n[2] > 80 && n[1] + n[2] <= 105) }'
ok $? "what spins either runs or waits: $both"
end "$two" KILL

# top(1) sees the same.
start_kvmstat top -cH 2 1
TERM=dumb top -b -H -d 2 -n 2 -p "$(thread "$one" 0)" >"$tmp/top"
wait "$pid"
seen=$(awk '/\/KVM/ { cpu = $9 } END { print cpu }' "$tmp/top")
run=$(share "$one" 0 12 "$tmp/top.out")
awk -v a="$run" -v b="$seen" 'BEGIN { exit !(a > b - 10 && a < b + 10) }'
ok $? "run% $run, and $seen by top"

# A kvmstat that is late spoils no share.
start_kvmstat late -cH -p "$one" 0.4 5
kill -STOP "$pid"
sleep 1.1
kill -CONT "$pid"
wait "$pid"
shares=$(cut -f 12,13 "$tmp/late.out" | tr '\t' + | xargs)
is "$(tr ' ' '\n' <<<"$shares" | awk -F+ '{ n[$1 <= 100 && $1 + $2 > 80 && $1 + $2 < 120]++ } END { print n[1] + 0 }')" \
	5 "stopped meanwhile: $shares"
# One that makes exits, and has to wait for a CPU: another one has it, or a quota is used up.
start_guest hungry -T -l o -n 0
hungry=$pid
until_true 5 thread "$hungry" 0 >"$tmp/thread"
taskset -pc 0 "$(thread "$hungry" 0)" >"$tmp/thread"
is "$("$kvmstat" -cH -p "$hungry" 4 1 | cut -f 14)" starved "a busy guest that shares a CPU"
end "$one" KILL
group=/sys/fs/cgroup/kvmstat-test.$$
if grep -qsw cpu /sys/fs/cgroup/cgroup.subtree_control && mkdir "$group"; then
	echo 20000 100000 >"$group/cpu.max"
	echo "$hungry" >"$group/cgroup.procs"
	out=$("$kvmstat" -cH -p "$hungry" 4 1)
	is "$(cut -f 14 <<<"$out")" starved "one that has a quota, of a fifth: $(cut -f 12,13 <<<"$out" | xargs)"
	[ "$(sed -n 's/^nr_throttled //p' "$group/cpu.stat")" -gt 0 ]
	ok $? "and nr_throttled grows"
else
	skip_check "the cpu controller of cgroup2" "a guest that has a quota"
fi
end "$hungry" KILL
rmdir "$group" 2>/dev/null
end "$idle" KILL

# A guest whose process is stopped has run before.
start_guest stopped -T -l x -n 0
stopped=$pid
until_true 5 thread "$stopped" 0 >"$tmp/thread"
kill -STOP "$stopped"
until_true 5 grep -q "^State:.T" "/proc/$stopped/task/$(thread "$stopped" 0)/status"
is "$("$kvmstat" -cH -p "$stopped" 0.3 2 | cut -f 3-)" "$(printf '0\t%.0s' {1..9})0.0	0.0	still
$(printf '0\t%.0s' {1..9})0.0	0.0	still" "a process that is stopped"
end "$stopped" KILL

# A vCPU that was unplugged: QEMU ends its thread, and keeps its descriptor.
start_guest unplugged -u -d -v 2 -l ox -n 0
unplugged=$pid
unplugged_in=$hold
start_kvmstat unplug -cH -p "$unplugged" 0.3
kvm=$pid
echo >&"$unplugged_in"
until_true 60 grep -q "1	.*gone$" "$tmp/unplug.out"
end "$kvm"
is "$(awk -F'\t' '$2 == 1 && $3 > 0 { ran = NR } $2 == 1 && ran && $14 == "still"' "$tmp/unplug.out")" "" \
	"a vCPU whose thread has ended is never still once it ran"
out=$("$kvmstat" -cH -p "$unplugged" 0.3 3)
is "$(awk '$2 == 1' <<<"$out" | cut -f 3-)" "$(yes "$(printf '0\t%.0s' {1..9})0.0	0.0	gone" | head -n 3)" \
	"it is gone, also to a kvmstat that was not there then"
start_kvmstat sums -cHs -p "$unplugged" 1 3
wait "$pid"
is "$(awk '$12 + $13 > 50 { print $14 }' "$tmp/sums.out")" "spins
spins
spins" "with -s, the other one's shares and state: $(cut -f 12-14 "$tmp/sums.out" | xargs)"
end "$unplugged" KILL

# Threads that are not known, or are others by now.
start_guest turns -1 -v 2 -l oh -s 1000 -n 0
is "$("$kvmstat" -cH -p "$pid" 0.4 3 | cut -f 12-14 | sort -u)" "-	-	-" \
	"one thread runs both vCPUs: no share is either's"
end "$pid" KILL
start_monitor passed -s 10000 -n 400 p
monitor_in=$hold
start_kvmstat passed_on -cH -p "$pid" 0.3
kvm=$pid
echo >&"$monitor_in"
until_true 20 test -s "$tmp/passed.out"
sleep 0.4
end "$kvm"
shares=$(cut -f 12 "$tmp/passed_on.out" | xargs)
is "$(tr ' ' '\n' <<<"$shares" | awk '$1 > 60' | wc -l)" 0 \
	"another thread runs the vCPU, and the former one computes: $shares"
[ "$(tr ' ' '\n' <<<"$shares" | grep -c '^[0-9]')" -ge 5 ]
ok $? "and the new one's share is told"

done_testing
