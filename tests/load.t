#!/usr/bin/env bash
# Under load, for LOAD_SECONDS (60; make load takes an hour): guests start and end, their
# threads change CPUs, kvmstat is stopped and continued, and one with small buffers loses
# events.  Each count is right or its loss is reported, and nothing grows.
. "$(dirname "$0")/lib.sh"
live_host
alone
own_name
seconds=${LOAD_SECONDS:-60}

# guests NAME LETTERS LOOPS OPTIONS...: one guest after the other, till there is $tmp/stop;
# $tmp/NAME.did is what they did
guests() {
	local name=$1 letters=$2 loops=$3
	shift 3
	while [ ! -e "$tmp/stop" ]; do
		"$guest" -l "$letters" -n "$loops" "$@" </dev/null >>"$tmp/$name.did" 2>/dev/null
	done
}

# hog: now and then one that makes exits as fast as it can, more than small buffers hold
hog() {
	while [ ! -e "$tmp/stop" ]; do
		sleep 2
		"$guest" -l on -n 100000 </dev/null >>"$tmp/hog.did" 2>/dev/null
	done
}

# stops PID: stops it for a while and continues it, again and again
stops() {
	while [ ! -e "$tmp/stop" ]; do
		kill -STOP "$1"
		sleep "0.$((RANDOM % 4))"
		kill -CONT "$1"
		sleep "0.$((RANDOM % 9 + 1))"
	done
}

# size PID: resident KiB, descriptors and threads; the least of a while, for it may be at work
size() {
	for _ in {1..30}; do
		echo "$(awk '$1 == "VmRSS:" { print $2 }' "/proc/$1/status") $(ls "/proc/$1/fd" | wc -l) $(ls "/proc/$1/task" | wc -l)"
		sleep 0.03
	done | sort -n -k 2,2 -k 1,1 | head -n 1
}

start_kvmstat large -H -b 32768 0.1
large=$pid
start_kvmstat small -H -b 16 0.1
small=$pid
workers=()
guests io oi 50 & workers+=($!)
guests moving oh 30 -v 2 -M & workers+=($!)
guests mmio mr 40 -v 3 & workers+=($!)
hog & workers+=($!)
stops "$large" & workers+=($!)
stops "$small" & workers+=($!)
children+=("${workers[@]}")

sleep "$((seconds / 3))"
early_large=$(size "$large")
early_small=$(size "$small")
sleep "$((seconds - seconds / 3))"
touch "$tmp/stop"
wait "${workers[@]}"
sleep 0.5
note "$(cut -f 2 "$tmp"/*.did | grep -cx 0) guests"
for kvm in large small; do
	declare -n early=early_$kvm kvm_pid=$kvm
	late=$(size "$kvm_pid")
	note "$kvm buffers: KiB resident, descriptors, threads: $early after a third of it, $late at the end"
	is "${late#* }" "${early#* }" "$kvm buffers: descriptors and threads are as many as before"
	case ${KVMSTAT:-} in
	*sanitized*) ;; # what is freed stays for a while
	*)
		[ "${late%% *}" -le $((${early%% *} + 256)) ]
		ok $? "$kvm buffers: memory is flat"
		;;
	esac
	end "$kvm_pid"
	lost=$(grep -o '[0-9]* on CPU' "$tmp/$kvm.err" | awk '{ n += $1 } END { print n + 0 }')
	# With events, births are lost, and then it is not known whose some threads were.
	known='no virtual machine is running'
	[ "$kvm" = large ] || known+='\|events lost:\|events: their threads ended'
	but_late "$tmp/$kvm.err"
	is "$(grep -v "$known" "$tmp/$kvm.err")" "" "$kvm buffers: no other error"
	# By process: exits counted, and exits made.
	{
		awk -F'\t' '{ n[$1] += $3 } END { for (pid in n) print "got", pid, n[pid] }' "$tmp/$kvm.out"
		{
			expected oi 50 <"$tmp/io.did"
			expected oh 30 <"$tmp/moving.did"
			expected mr 40 <"$tmp/mmio.did"
			expected on 100000 <"$tmp/hog.did"
		} | awk '{ n[$1] += $3 } END { for (pid in n) print "made", pid, n[pid] }'
	} | awk '
		{ n[$1, $2] = $3; total[$1] += $3 }
		$1 == "made" { made[$2] }
		END {
			for (pid in made) {
				guests++
				if (n["got", pid] != n["made", pid]) {
					wrong++
					print "process " pid ": " n["got", pid] + 0 " of " n["made", pid] >"/dev/stderr"
				}
			}
			print guests + 0, wrong + 0, total["made"] - total["got"]
		}' >"$tmp/$kvm.result" 2>"$tmp/$kvm.wrong"
	read -r guests wrong missing <"$tmp/$kvm.result"
	note "$kvm buffers: $guests processes, $wrong of them not right: $missing exits short; $lost events lost, as reported"
	[ "$guests" -gt "$((seconds / 2))" ] && [ "$missing" -ge 0 ] && [ "$missing" -le "$lost" ] &&
		[ "$wrong" -eq 0 -o "$lost" -gt 0 ]
	ok $? "$kvm buffers: each count is right, or its loss is reported"
done
[ "$lost" -gt 0 ]
ok $? "small buffers did lose events"
is "$(cat "$tmp/large.wrong")" "" "large ones had every guest right"
nothing_left
ok $? "nothing is left"

done_testing
