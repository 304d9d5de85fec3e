#!/usr/bin/env bash
# What another user does with machines, threads, names and descriptors by the thousand hides or
# changes nothing of a guest of root's, delays no report, and does not keep kvmstat from ending.
. "$(dirname "$0")/lib.sh"
live_host
alone
own_name
chmod 755 "$tmp"
cp "$attack" "$tmp/attack"
# /dev/kvm is open to all, as on many hosts, in the test's own mount name space.
mknod -m 666 "$tmp/kvm" c "0x$(stat -c %t /dev/kvm)" "0x$(stat -c %T /dev/kvm)"
mount --bind "$tmp/kvm" /dev/kvm
last_id=/proc/sys/kernel/ns_last_pid
interval=0.5

# start_attack MODE ARGUMENTS...: as another user; sets attacker, its process id
start_attack() {
	rm -f "$tmp/attack.in"
	start attack setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all \
		"$tmp/attack" "$@"
	attacker=$pid
}

# attack_is_ready MODE: waits for it
attack_is_ready() {
	until_true 60 grep -qs '^ready' "$tmp/attack.out"
	ok $? "$1: in place: $(head -n 1 "$tmp/attack.out" | cut -d ' ' -f 2-)"
	grep -q '^ready' "$tmp/attack.out" || why "$(cat "$tmp/attack.err")"
}

gone() {
	[ "$(awk '{ print $3 }' "/proc/$1/stat" 2>/dev/null || echo Z)" = Z ]
}

# last_report NAME: when the last interval ended that it reported
last_report() {
	tail -n 1 "$tmp/$1.out" | cut -f 1 | grep . || echo 0
}

# reports NAME N: whether it has as many with root's guest
reports() {
	[ "$(cat "$tmp/$1.out" 2>/dev/null | grep -c "	$root	0	")" -ge "$2" ]
}

# start_root WHAT: a guest of root's, of known exits in three seconds, that waits for a line; sets
# root and root_in
start_root() {
	rm -f "$tmp/root.in" "$tmp/root.err"
	start_guest root -d -v 2 -T -n 1000 -l oh -s 3000 -w -N -name guest=root
	root=$pid root_in=$hold
}

# judge MODE NAME PID: of a kvmstat that ran beside it, since before root's guest did something:
# reports on time, counts right, an end within a second
judge() {
	local mode=$1 name=$2 kvm=$3 since late
	late=$(awk -v now="$(date +%s.%N)" -v last="$(last_report "$name")" 'BEGIN { print now - last }')
	awk -v late="$late" -v interval=$interval 'BEGIN { exit !(late < 3 * interval) }'
	ok $? "$mode, $name: the last report is of $late s ago, as it should be"
	since=$(date +%s%N)
	kill -TERM "$kvm"
	until_true 5 gone "$kvm"
	since=$((($(date +%s%N) - since) / 1000000))
	gone "$kvm" || kill -KILL "$attacker" # what it waits for may be the attacker's
	end "$kvm" KILL
	[ "$since" -lt 1000 ] && [ "$status" -eq 143 ]
	ok $? "$mode, $name: SIGTERM ends it within a second ($since ms, status $status)"
	awk -F'\t' -v root="$root" -v interval=$interval '
		$1 != time && time != "" { n++; if ($1 - time > interval * 1.01) missing++ }
		{ time = $1 }
		$2 == root { rows[time]++ }
		END {
			for (t in rows) { reports++; if (rows[t] != 2) wrong++ }
			exit missing || wrong || reports < 6
		}' "$tmp/$name.out"
	ok $? "$mode, $name: no report is missing, and none lacks a row of root's guest"
	is "$(cut -f 2-12 "$tmp/$name.out" | grep "^$root	" | sums /dev/stdin)" "$(expected oh 1000 <"$tmp/root.out")" \
		"$mode, $name: the counts of root's guest are KVM's"
	is "$(grep "	$root	" "$tmp/$name.out" | cut -f 13 | sort -u)" root "$mode, $name: under its name"
}

# run_root: lets root's guest do its exits
run_root() {
	echo >&"$root_in"
	until_true 60 test -s "$tmp/root.out"
	sleep 1.2 # two reports, so that the last one would be late if it had to wait
}

# finish MODE: ends the rest
finish() {
	end "$attacker" KILL
	end "$root" KILL
	until_true 5 nothing_left
	ok $? "$1: nothing is left"
}

# beside MODE ARGUMENTS...: the attack beside a kvmstat that was there before, and one that came
# after; sets rows, to a file with the rows of both
beside() {
	local mode=$1 before after
	start_root
	start_kvmstat "$mode-before" -HnT u $interval
	before=$pid
	start_attack "$@"
	attack_is_ready "$mode"
	start "$mode-after" "$kvmstat" -HnT u $interval
	after=$pid
	until_true 5 reports "$mode-after" 1
	run_root
	judge "$mode" "$mode-before" "$before"
	judge "$mode" "$mode-after" "$after"
	finish "$mode"
	rows=$tmp/$mode.rows
	cat "$tmp/$mode-before.out" "$tmp/$mode-after.out" >"$rows"
}

# Machines without a vCPU, and descriptors up to the limit.
beside empty 2000 19000
is "$(cut -f 2 "$rows" | sort -u)" "$root" "empty: no row of machines without a vCPU"

# Machines of one vCPU each, with different numbers; half of them go and come.
beside numbers 1200
awk -F'\t' -v pid="$attacker" '$2 == pid && ($3 >= 1200 || seen[FILENAME, $1, $3]++) { bad = 1 } END { exit bad }' \
	"$tmp/numbers-before.out" "$tmp/numbers-after.out"
ok $? "numbers: no vCPU has two rows, and none that is not there has one"

# Machines whose descriptors moved, and processes full of descriptors.
beside moved 10

# Processes that share one table of descriptors, and machines without a directory in debugfs.
beside table 100 19000
is "$(cut -f 2 "$rows" | sort -u)" "$root" "table: no row of a process without machines"
beside twins 400 150

# A machine whose descriptors many processes have is shown once, and so is each of their own.
beside held 60 200
for kvm in before after; do
	is "$(awk -F'\t' -v root="$root" -v pid="$attacker" '
		$1 != time { time = $1; maker = own = others = 0 }
		$2 == pid { maker++ }
		$2 != pid && $2 != root && $3 == 0 { own++ }
		$2 != pid && $2 != root && $3 != 0 { others++ }
		END { print maker, own, others + 0 }' "$tmp/held-$kvm.out")" "200 20 0" \
		"held, $kvm: rows of the one that made it, and of those with a machine of their own"
done

# A vCPU that each of many threads runs: once, or with the names of other vCPUs' threads, or once
# and each the child of one that has ended.
beside churn
for mode in names chain; do
	beside $mode
	is "$(cut -f 2 "$rows" | grep -vx "$root" | sort -u)" "$attacker" "$mode: one process is shown"
	is "$(awk -F'\t' -v pid="$attacker" '$2 == pid && $3 != "?" { print $3 }' "$rows" | sort -u)" 0 \
		"$mode: and no vCPU that is not there"
done

# The same, recorded.
start_root
start_kvmstat recorded -Hn -w "$tmp/w.dat" $interval
kvm=$pid
start_attack churn
attack_is_ready "churn, recorded"
run_root
kill -TERM "$kvm"
until_true 30 gone "$kvm"
end "$kvm" KILL
is "$status" 143 "churn, recorded: SIGTERM ends it"
"$kvmstat" -Hn -r "$tmp/w.dat" >"$tmp/report" 2>"$tmp/report.err"
like "$?" '^[03]$' "churn, recorded: it can be reported"
is "$(grep "^$root	" "$tmp/report" | cut -f1-11 | sums /dev/stdin)" "$(expected oh 1000 <"$tmp/root.out")" \
	"and root's guest is in it with KVM's counts"
finish "churn, recorded"

# Threads whose dead parents' ids are those of another process's threads: of a guest that does
# nothing, but has workers that come and go.
start_kvmstat spoof -HnT u $interval
kvm=$pid
start_monitor victim -v 2 w
victim=$pid
start_root
start_attack spoof "$victim"
attack_is_ready spoof
fired() {
	echo $(($(sed -n 's/^ready \([0-9]*\) .*/\1/p' "$tmp/attack.out") - 1)) >$last_id
	until_true 1 grep -q '^fired' "$tmp/attack.out"
}
until_true 1 fired
ok $? "spoof: the victim has threads of these ids"
run_root
judge spoof spoof "$kvm"
is "$(cut -f 2-12 "$tmp/spoof.out" | grep "^$victim	" | sums /dev/stdin)" \
	"$(printf "$victim\\t%s\\t0\\t0\\t0\\t0\\t0\\t0\\t0\\t0\\t0\n" 0 1)" "spoof: none of their exits is in the victim's rows"
is "$(cut -f 2-12 "$tmp/spoof.out" | grep "^$attacker	" | sums /dev/stdin | cut -f 3 | xargs)" $((5 * 777)) \
	"spoof: they are in the attacker's"
end "$victim" KILL
finish spoof

# A process that has the id of a guest that ended.
start_kvmstat reuse -HnT u $interval
kvm=$pid
start_root
rm -f "$tmp/old.in"
start_guest old -n 0 -l oh -s 1000 -N -name guest=bank-db
old=$pid
until_true 5 reports reuse 2
start_attack reuse "$old"
until_true 5 grep -q "	bank-db$" "$tmp/reuse.out"
end "$old" KILL
reused() {
	echo $((old - 1)) >$last_id
	grep -q '^ready' "$tmp/attack.out"
}
until_true 30 reused
attack_is_ready reuse
time=$(date +%s.%N)
run_root
judge reuse reuse "$kvm"
awk -F'\t' -v since="$time" -v pid="$old" -v interval=$interval '$1 > since + interval && $2 == pid' \
	"$tmp/reuse.out" >"$tmp/later"
is "$(cut -f 13 "$tmp/later" | sort -u)" attack "reuse: its rows are under its own name"
[ "$(cut -f 4 "$tmp/later" | awk '{ n += $1 } END { print n + 0 }')" -gt 1000 ]
ok $? "and have its counts"
finish reuse

# Machines that debugfs has under the id of root's guest, and under its machine's descriptor.
start_kvmstat lend -HnT u $interval
kvm=$pid
start_attack lend
attack_is_ready lend
read -r _ first _ last <"$tmp/attack.out"
for _ in {1..100}; do
	echo $((first + 2)) >$last_id
	start_root
	[ "$root" -lt "$first" ] || [ "$root" -gt "$last" ] || break
	end "$root" KILL
done
[ "$root" -ge "$first" ] && [ "$root" -le "$last" ]
ok $? "lend: root's guest has such an id"
until_true 5 reports lend 2
start lend-after "$kvmstat" -HnT u $interval
after=$pid
until_true 5 reports lend-after 2
run_root
judge lend lend "$kvm"
judge lend lend-after "$after"
finish lend

# A guest whose command line hangs who reads it.
if has_device /dev/fuse; then
	mkdir "$tmp/hung"
	start_root
	exec {fuse}<>/dev/fuse
	mount -i -t fuse -o "fd=$fuse,rootmode=40000,user_id=65534,group_id=65534" attack "$tmp/hung"
	start_attack hang "$fuse" "$tmp/hung"
	exec {fuse}>&-
	attack_is_ready hang
	start hang "$kvmstat" -HnT u $interval
	kvm=$pid
	until_true 5 reports hang 2
	run_root
	like "$(cut -f 2,3 "$tmp/hang.out" | sort -u | xargs)" "\\b$attacker 0\\b" "hang: its own row is there"
	judge hang hang "$kvm"
	is "$("$kvmstat" -H -p root 0.1 1 2>"$tmp/err" | cut -f 1 | uniq)" "$root" "hang: -p with root's guest's name"
	"$kvmstat" -p root 0.1 1 >"$tmp/out" 2>"$tmp/err"
	is "$? $(cat "$tmp/err")" "3 kvmstat: /proc/$attacker/cmdline: no answer (-p leaves this guest out, and \
perhaps others: their names cannot be told)" "hang: says that it cannot know another one's"
	finish hang

	# Processes that hang in execve().
	exec {fuse}<>/dev/fuse
	mkdir "$tmp/jammed"
	mount -i -t fuse -o "fd=$fuse,rootmode=40000,user_id=65534,group_id=65534" attack "$tmp/jammed"
	beside jam 30 1 "$fuse" "$tmp/jammed"
	exec {fuse}>&-
else
	skip_check "needs /dev/fuse" "hang"
fi

done_testing
