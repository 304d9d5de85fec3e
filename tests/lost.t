#!/usr/bin/env bash
# Lost events are never silent, and the number is right.
. "$(dirname "$0")/lib.sh"
live_host
[ "$(nproc)" -ge 2 ] || skip_here "needs two CPUs"
alone
needs strace

# sum FILE: of the events that the lines in it say were lost
sum() {
	grep -o '[0-9]* on CPU' "$1" | awk '{ n += $1 } END { print n + 0 }'
}

# overrun PID: what the kernel says that kvmstat PID's buffers overran by
overrun() {
	cat "$instances/kvmstat.$1"/per_cpu/cpu*/stats | awk '/^overrun/ { n += $2 } END { print n }'
}

# overran PID: that they did
overran() {
	[ "$(overrun "$1")" -gt 0 ]
}

# A guest at full speed on one CPU, one that makes few exits on the other.
start_guest busy -n 0 -l o
busy=$pid
taskset -acp 0 "$busy" >/dev/null
start_guest known -d -n 200 -l oh -w
known=$pid known_in=$hold
taskset -acp 1 "$known" >/dev/null
start_kvmstat lossy -b 256 -H -p "$busy,$known" 0.5
kvm=$pid
until_true 5 test -s "$tmp/lossy.out"
kill -STOP "$kvm"
until_true 5 overran "$kvm"
echo >&"$known_in"
until_true 10 test -s "$tmp/known.out"
end "$busy" KILL
lost=$(overrun "$kvm")
kill -CONT "$kvm"
until_true 5 grep -q "as before" "$tmp/lossy.err"
end "$known"
wait "$kvm"
is $? 3 "events were lost: status 3"
is "$(head -n 1 "$tmp/lossy.err")" "kvmstat: events lost: $lost on CPU 0 (raise -b, now 256)" \
	"one line, for the report that lost them: how many, as the kernel counted, where, and what to do"
is "$(sed '1d; /: no virtual machine is running in the processes of -p$/d' "$tmp/lossy.err" | sort -u)" "kvmstat: events lost: as before on CPU 0 (raise -b, now 256)" \
	"and one for each further report that may lack some of them"
is "$(sums "$tmp/lossy.out" | grep "^$known	")" "$(expected oh 200 <"$tmp/known.out")" \
	"what is counted on another CPU is right"

# told TRY N: that so many are in its lines
told() {
	[ "$(sum "$tmp/odd_lossy$1.err")" = "$2" ]
}

# The same where the page has no room for the number: it comes from the kernel's own count.
for try in 1 2 3 4 5; do
	start_guest "odd$try" -n 0 -l o
	odd=$pid
	start_kvmstat "odd_lossy$try" -b 8 -H 0.2
	kvm=$pid
	until_true 5 test -s "$tmp/odd_lossy$try.out"
	kill -STOP "$kvm"
	until_true 5 overran "$kvm"
	end "$odd" KILL
	lost=$(overrun "$kvm")
	kill -CONT "$kvm"
	until_true 5 told "$try" "$lost"
	end "$kvm"
	got=$(sum "$tmp/odd_lossy$try.err")
	[ "$got" = "$lost" ] || echo "# got $got, wanted $lost"
done >"$tmp/differences"
is "$(cat "$tmp/differences")" "" "with tiny buffers: all that was lost is in the lines"

# Where the kernel says that there is nothing, a read() may lose what comes just then.
start_guest steady -v 2 -n 0 -l omh -s 100
steady=$pid
for options in "" "-w $tmp/x.dat" "-e mmio -w $tmp/x.dat"; do
	# shellcheck disable=SC2086 # a list
	strace -qq -y -e trace=read -o "$tmp/trace" "$kvmstat" $options 0.05 20 >/dev/null
	like "$(grep -c 'trace_pipe_raw.* = [1-9]' "$tmp/trace")" '^[1-9][0-9]' "kvmstat $options: reads buffers"
	is "$(grep 'trace_pipe_raw.* = [^1-9]' "$tmp/trace" | head -n 3)" "" "but no empty one"
done
end "$steady"

done_testing
