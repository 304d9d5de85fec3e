#!/usr/bin/env bash
# kvmstat disturbs nobody, and leaves nothing behind, whatever ends it.
. "$(dirname "$0")/lib.sh"
live_host
alone

# Everything that is not kvmstat's own and that it might have changed.
host() {
	local tracing=$tmp/tracefs f
	for f in buffer_size_kb current_tracer set_event set_event_pid trace_clock trace_options \
		tracing_on events/enable events/kvm/enable; do
		echo "$f: $(xargs <"$tracing/$f")"
		[ -d "$tracing/instances/theirs" ] && echo "theirs/$f: $(xargs <"$tracing/instances/theirs/$f")"
	done
	cat /proc/self/mountinfo
}

own_name
start_guest guest -n 0 -l oh -s 200 -v 2
# However the test ends; then its processes may have files there open for a moment.
trap '[ ! -e "$instances/theirs" ] || until_true 5 rmdir "$instances/theirs" 2>/dev/null; clean_up' EXIT
mkdir "$instances/theirs"
echo 1 >"$instances/theirs/events/kvm/kvm_userspace_exit/enable"
echo 1 >"$instances/theirs/events/sched/sched_switch/enable"
echo 512 >"$instances/theirs/buffer_size_kb"
before=$(host)

start_kvmstat during -p "$pid" 0.1
is "$(host)" "$before" "while it runs, the host's tracing and mounts are as before"
end "$pid"
nothing_left
ok $? "SIGTERM: nothing is left"
is "$status" 143 "and it died of SIGTERM"
is "$(host)" "$before" "and the host's tracing and mounts are as before"
entries=$(awk '/^entries/ { print $2 }' "$instances"/theirs/per_cpu/cpu*/stats | sort -n | tail -n 1)
[ "$entries" -gt 0 ]
ok $? "another's instance has its events"
echo 0 >"$instances/theirs/events/enable"
rmdir "$instances/theirs"

for signal in INT HUP QUIT; do
	start_kvmstat "$signal" 0.1
	end "$pid" "$signal"
	nothing_left
	ok $? "SIG$signal: nothing is left"
	is "$status" $((128 + $(kill -l "$signal"))) "and it died of SIG$signal"
done

# As ^C does: the signal goes to the shell and to kvmstat.
setsid env --default-signal=INT bash -c 'for i in 1 2 3; do "$0" 0.1; echo again; done' \
	"$kvmstat" >"$tmp/loop" 2>/dev/null &
loop=$!
children+=("$loop")
until_true 10 grep -q exits "$tmp/loop"
kill -INT -- "-$loop"
wait "$loop"
is "$?$(grep again "$tmp/loop")" 130 "^C stops a shell loop around it"
nothing_left
ok $? "and nothing is left"

"$kvmstat" 0.05 2 >/dev/null
is $? 0 "the count is reached: status 0"
nothing_left
ok $? "and nothing is left"

"$kvmstat" 0.05 2>"$tmp/err" | head -n 2 >/dev/null
is "${PIPESTATUS[0]}" 141 "the pipe's reader goes: it dies of SIGPIPE, as others do"
is "$(cat "$tmp/err")" "" "and says nothing"
nothing_left
ok $? "and nothing is left"

SECONDS=0
"$kvmstat" 60 2>"$tmp/err" | true
[ "$SECONDS" -lt 30 ]
ok $? "it sees that its reader went before it has something to write"

"$kvmstat" 0.05 >/dev/full 2>"$tmp/err"
is $? 1 "stdout is full: status 1"
is "$(cat "$tmp/err")" "kvmstat: stdout: No space left on device" "and an error"
"$kvmstat" 0.05 1 >&- 2>"$tmp/err"
is $? 1 "stdout is closed: status 1"
nothing_left
ok $? "and nothing is left"

# Readers that never read: what is full stays full, until a signal comes.
mkfifo "$tmp/deaf"
exec {deaf}<>"$tmp/deaf"
dd if=/dev/zero of="$tmp/deaf" bs=4k oflag=nonblock 2>/dev/null
for full in stdout stderr; do
	stdout=/dev/null stderr=/dev/null
	declare "$full=$tmp/deaf"
	"$kvmstat" -p "$$" 0.1 >"$stdout" 2>"$stderr" &
	kvm=$!
	until_true 10 tracing "$kvm"
	sleep 0.5
	kill -TERM "$kvm"
	until_true 5 test ! -e "/proc/$kvm"
	end "$kvm" KILL
	is "$status" 143 "$full is full, and nobody reads it: SIGTERM ends it"
	nothing_left
	ok $? "and nothing is left"
done
exec {deaf}>&-

start_kvmstat killed 0.1
end "$pid" KILL
before=${EPOCHREALTIME/./}
until_true 3 nothing_left
ok $? "SIGKILL: nothing is left, $(((${EPOCHREALTIME/./} - before) / 1000)) ms later"

start_kvmstat nohup_test 0.1
end "$pid"
nohup "$kvmstat" 0.1 >"$tmp/nohup" 2>/dev/null &
night=$!
until_true 10 tracing "$night"
kill -HUP "$night"
sleep 0.3
kill -0 "$night"
ok $? "under nohup it survives SIGHUP"
end "$night"

# All of its processes at once: the next one cleans up, and leaves the living alone.
start_kvmstat dead 0.1
dead=$pid
pkill -KILL -x "$name"
wait "$dead" 2>/dev/null
none_runs() {
	! pgrep -x "$name" >/dev/null
}
until_true 2 none_runs
is "$(ours)" "kvmstat.$dead" "both of its processes killed: the instance is left"
start_kvmstat living 0.1
living=$pid
is "$(ours)" "kvmstat.$living" "the next kvmstat removes it"
start_kvmstat another 0.1
another=$pid
is "$(ours)" "$(printf 'kvmstat.%s\n' "$living" "$another" | sort)" \
	"and none of a living one"
end "$another"
size=$(stat -c %s "$tmp/living.out")
grows() {
	[ "$(stat -c %s "$tmp/living.out")" -gt "$size" ]
}
until_true 5 grows
ok $? "which goes on"

# Its helper killed: it cleans up itself.
pkill -KILL -P "$living" -x "$name"
end "$living"
nothing_left
ok $? "the helper process killed: nothing is left"

# Another one that is stopped while it starts, for which this one waits.
exec {lock}<"$instances"
flock "$lock"
start waiting "$kvmstat" 0.1
until_true 10 grep -q -- "-> FLOCK .* $pid " /proc/locks
kill -TERM "$pid"
until_true 5 test ! -e "/proc/$pid"
end "$pid" KILL
is "$status" 143 "SIGTERM ends one that waits for another one's start"
nothing_left
ok $? "and nothing is left"
exec {lock}<&-

# Many starts at a time: none takes another's new instance for a dead one's.
for i in 1 2 3 4 5 6 7 8; do
	"$kvmstat" -H 0.1 3 >"$tmp/many$i" 2>"$tmp/many$i.err" &
	children+=($!)
done
bad=0
for child in "${children[@]: -8}"; do
	wait "$child" || bad=1
done
is "$bad$(cat "$tmp"/many*.err)" 0 "eight that start at once all run"
nothing_left
ok $? "and nothing is left"

# tracefs mounted where it usually is.
mount -t tracefs nodev /sys/kernel/tracing
is "$("$kvmstat" -H 0.2 1 | awk '{ print $2, ($3 > 0) }' | xargs)" "0 1 1 1" \
	"with tracefs mounted it works as well"
umount /sys/kernel/tracing
ok $? "and holds nothing of the mount"

# Somebody has a file of the instance open, and does not close it.
start_kvmstat held 1 1
kvm=$pid
exec {held}<"$instances/kvmstat.$kvm/trace_clock"
wait "$kvm"
is "$?$(cat "$tmp/held.err")" "1kvmstat: tracefs instance kvmstat.$kvm: in use (somebody has a file of it open: rmdir it later, or the next kvmstat will)" \
	"an instance in use: status 1, and a line that says so"
is "$(cat "$instances/kvmstat.$kvm/events/enable")" 0 "its events are off"
exec {held}<&-
"$kvmstat" 0.1 1 >/dev/null 2>&1
[ ! -e "$instances/kvmstat.$kvm" ]
ok $? "the next kvmstat removes it"

done_testing
