#!/usr/bin/env bash
# Monitors with odd habits: each vCPU has its row, idle or not, and KVM's own figures.
. "$(dirname "$0")/lib.sh"
live_host
alone

# rows FILE PID: of each of its rows, the vCPU and whether it did something, in all reports
rows() {
	awk -F'\t' -v pid="$2" '$1 == pid { did[$2] += $3 + $4 + $7 + $10 }
		END { for (vcpu in did) print vcpu, (did[vcpu] > 0) }' "$1" | sort | xargs
}

# did NAME: the sums that the monitor's rows should have
did() {
	expected oh 300 <"$tmp/$1.out" | sums /dev/stdin
}

# counted FILE PID: whether exits of it are reported
counted() {
	awk -F'\t' -v pid="$2" '$1 == pid { n += $3 } END { exit n == 0 }' "$1"
}

# The habits, by tests/monitor's letters, what they are, and how many vCPUs.  With two machines
# of which only one has a directory in debugfs, nothing tells two vCPUs of it apart.
habits="
- 2 none
x 2 the main thread has ended
t 2 a thread that ended made the machine
xt 2 the main thread, and the one that made the machine, have ended
o 2 a thread with a descriptor table of its own has the machine
ox 2 and the main thread has ended
d 2 the machine's descriptor was duplicated and the first one closed
c 2 the machine's descriptor is closed
tc 2 the machine's descriptor is closed, and the thread that made it has ended
xc 2 the machine's descriptor is closed, and the main thread has ended
v 2 the vCPUs' descriptors were duplicated and the first ones closed
dv 2 all descriptors were duplicated and the first ones closed
h 3 vCPUs are added while it runs
xth 3 vCPUs are added, the main thread and the one that made the machine have ended
r 2 the vCPUs' threads have other names
u 2 it became another user
f 2 it forks children that hold its descriptors
w 2 it has other threads that come and go
ox2 1 two machines, in a thread with a descriptor table of its own
2 1 two machines
2c 1 two machines, made with the same descriptor: the second has no directory in debugfs
a 2 the machine is closed and another one made with the same descriptor, while it runs
xa 2 the same, and the main thread has ended
"

start_kvmstat before -H 0.1
before=$pid
declare -A pids holds
while read -r habit vcpus _; do
	[ -n "$habit" ] || continue
	start_monitor "$habit" -v "$vcpus" "${habit#-}"
	pids[$habit]=$pid holds[$habit]=$hold
done <<<"$habits"
list=$(IFS=,; echo "${pids[*]}")
"$kvmstat" -H 0.3 1 >"$tmp/idle" 2>"$tmp/idle.err"
is "$?$(cat "$tmp/idle.err")" 0 "all idle: status 0, and no line"
"$kvmstat" -H -p "$list" 0.3 1 >"$tmp/idle_p" 2>"$tmp/idle_p.err"
is "$?$(cat "$tmp/idle_p.err")" 0 "-p of all: status 0, and no line"
start_kvmstat after -H 0.1
after=$pid
start_kvmstat only -H -p "$list" 0.1
only=$pid
for hold in "${holds[@]}"; do
	echo >&"$hold"
done
all_done() {
	local habit
	for habit in "${!pids[@]}"; do
		[ -s "$tmp/$habit.out" ] || return 1
	done
}
until_true 30 all_done
ok $? "all have finished"
for kvm in before after only; do
	next_reports $kvm "${pids[-]}"
done
end "$before"
end "$after"
end "$only"

while read -r habit vcpus what; do
	[ -n "$habit" ] || continue
	p=${pids[$habit]}
	case $habit in
	*h) idle="0 0" ;;
	*) idle=$(for ((i = 0; i < vcpus; i++)); do echo "$i 0"; done | xargs) ;;
	esac
	is "$(rows "$tmp/idle" "$p")" "$idle" "$what: idle, it has rows of zeros"
	is "$(rows "$tmp/idle_p" "$p")" "$idle" "and with -p"
	want=$(did "$habit")
	for kvm in before after only; do
		is "$(grep "^$p	" "$tmp/$kvm.out" | sums /dev/stdin)" "$want" \
			"$what: its counts, by a kvmstat $kvm"
	done
done <<<"$habits"
processes=$(printf '%s\n' "${pids[@]}" | sort -n)
for kvm in before after only; do
	is "$(cut -f1 "$tmp/$kvm.out" | sort -nu)" "$processes" "$kvm: no other process has a row"
	is "$(cut -f2 "$tmp/$kvm.out" | grep -c '?')" 0 "$kvm: and no row is ?"
	but_late "$tmp/$kvm.err"
	is "$(grep -v 'no virtual machine is running' "$tmp/$kvm.err")" "" "$kvm: and no error is said"
done
for p in "${pids[@]}"; do
	end "$p" KILL
done

# vCPU 0 is never run; vCPU 1 is made later, runs for an instant and is gone: none of its
# exits is vCPU 0's.
start_kvmstat late -H 0.5
late=$pid
pids=() holds=()
for i in 1 2 3 4 5 6 7 8; do
	start_monitor "late$i" -v 2 -n 3 -s 0 hl
	pids[i]=$pid holds[i]=$hold
done
next_reports late "${pids[8]}" # which have seen their first vCPUs alone
for hold in "${holds[@]}"; do
	echo >&"$hold"
done
for i in 1 2 3 4 5 6 7 8; do
	wait "${pids[i]}"
	until_true 10 counted "$tmp/late.out" "${pids[i]}"
	is "$(awk -F'\t' -v pid="${pids[i]}" '$1 == pid && $2 == 0 { n += $3 + $4 + $7 + $10 } END { print n }' \
		"$tmp/late.out")" 0 \
		"a vCPU that ran for an instant, $i: none of its exits is in another one's row"
done
end "$late"

# A recording of -p has those processes only: a guest that was not traced is none that did nothing.
start_guest mine -n 0 -l oh -s 1000 -v 2 -N -name guest=mine
mine=$pid
start_guest other -n 0 -l oh -s 1000 -N -name guest=somebodyelses
other=$pid
"$kvmstat" -Hn -p "$mine" -w "$tmp/w.dat" 0.25 4 >"$tmp/live"
is "$?$(cut -f1,12 "$tmp/live" | sort -u)" "0$mine	mine" "-p with -w: the guest that was asked for"
"$kvmstat" -Hn -r "$tmp/w.dat" >"$tmp/recorded"
is "$?$(cut -f1,2,12 "$tmp/recorded")" "0$mine	0	mine"$'\n'"$mine	1	mine" \
	"and no other one is in the recording's report"
is "$(grep -ac somebodyelses "$tmp/w.dat")" 0 "nor is its name in the file"

# kvmstat -p $(pidof ...) of two guests
timeout 5 "$kvmstat" -p "$mine" "$other" >"$tmp/out" 2>"$tmp/err"
is "$?$(cat "$tmp/out")" 2 "-p with two words: status 2"
like "$(head -n 1 "$tmp/err")" '^kvmstat: .*commas' "and a line that says what separates them"
timeout 5 "$kvmstat" -p "$mine" "$other" "$mine" >"$tmp/out" 2>"$tmp/err"
is "$?$(cat "$tmp/out")" 2 "-p with three words: status 2"
like "$(head -n 1 "$tmp/err")" '^kvmstat: .*commas' "and the same line"
"$kvmstat" -p "$mine" 1 1 >/dev/null 2>"$tmp/err"
is "$?$(cat "$tmp/err")" 0 "an interval that is a process, but no guest's, is an interval"
end "$mine"
end "$other"

done_testing
