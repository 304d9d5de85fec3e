#!/usr/bin/env bash
# Another program changes the instance of a kvmstat that reports: a line says so before the
# report that it spoils, and the next ones are right again.
. "$(dirname "$0")/lib.sh"
live_host
alone

event=kvm/kvm_exit
software_backend && event=kvm/kvm_userspace_exit
cpus=$(find "$tmp/tracefs/per_cpu" -maxdepth 1 -name 'cpu[0-9]*' | wc -l)

# What another program does to the instance: its name here, how the line is to name the file,
# and the command, with the instance as working directory.
changes="
off events/.*enable echo 0 >events/enable
kvm_off events/.*enable echo 0 >events/kvm/enable
event_off events/$event/enable echo 0 >events/$event/enable
tracing_off tracing_on echo 0 >tracing_on
off_and_on events/$event/enable echo 0 >events/$event/enable; sleep 0.05; echo 1 >events/$event/enable
tracing_off_and_on tracing_on echo 0 >tracing_on; sleep 0.05; echo 1 >tracing_on
empty (trace|per_cpu) echo >trace
empty_cpus (trace|per_cpu) for ((i = 0; i < $cpus; i++)); do echo >per_cpu/cpu\$i/trace; done
pid set_event_pid echo 1 >set_event_pid
clock trace_clock echo local >trace_clock
smaller buffer_size_kb echo 8 >buffer_size_kb
keep_old overwrite echo 0 >options/overwrite
percent buffer_percent echo 100 >buffer_percent
filter filter echo common_pid==1 >events/$event/filter
reader trace_pipe timeout 0.3 cat trace_pipe || :
"

# change NAME: the command
change() {
	sed -n "s/^$1 [^ ]* //p" <<<"$changes"
}

# names: of all of them
names() {
	sed -n 's/ .*//p' <<<"$changes"
}

# all_told: whether each of the kvmstats has said so
all_told() {
	local name
	for name in $(names); do
		grep -q 'by another program' "$tmp/$name.err" || return 1
	done
}

start_guest busy -v 2 -n 0 -l oh -s 500
busy=$pid
declare -A pids
for name in $(names); do
	start_kvmstat "$name" -b 512 -H -T u 0.25
	pids[$name]=$pid
done
# One that nobody touches, to see that nothing is said of it.
start_kvmstat untouched -b 512 -H -T u 0.25
pids[untouched]=$pid
for name in "${!pids[@]}"; do
	until_true 5 test -s "$tmp/$name.out"
done

for name in $(names); do
	(cd "$instances/kvmstat.${pids[$name]}" && eval "$(change "$name")") >/dev/null 2>"$tmp/$name.change"
	is "$?$(cat "$tmp/$name.change")" 0 "$(change "$name")"
done
until_true 10 all_told
sleep 1 # for what takes more than an interval to set right, as the buffers' size

# From here on, all is right again.
start_guest known -v 2 -n 300 -l oh -w
known=$pid
until_true 10 test -s "$tmp/known.out"
want=$(expected oh 300 <"$tmp/known.out")
# has_lines NAME N: whether it has printed as many
has_lines() {
	[ "$(wc -l <"$tmp/$1.out")" -ge "$2" ]
}
for name in "${!pids[@]}"; do
	until_true 5 has_lines "$name" $(($(wc -l <"$tmp/$name.out") + 8)) # two reports and more
	end "${pids[$name]}"
done
while read -r name file _; do
	[ -n "$name" ] || continue
	lines=$(grep 'by another program' "$tmp/$name.err")
	like "$(head -n 1 <<<"$lines")" "^kvmstat: .*$file.*too low" "$name: a line that names $file"
	like "$(wc -l <<<"$lines")" '^[12]$' "and it is said once"
	is "$(cut -f2- "$tmp/$name.out" | grep "^$known	" | sums /dev/stdin)" "$want" \
		"and a guest that runs later is counted"
	is "$(tail -n 20 "$tmp/$name.out" | awk -F'\t' -v pid="$busy" '$2 == pid && $4 == 0' | wc -l)" 0 \
		"and the one that runs has no row of zeros"
	is "$(cut -f1 "$tmp/$name.out" | uniq | awk 'NR > 1 && $1 - time > 0.26 { n++ } { time = $1 } END { print n + 0 }')" 0 \
		"and no report is missing"
	is "$(grep -c '[0-9]\{15,\}' "$tmp/$name.err")" 0 "and no number is beyond belief"
done <<<"$changes"
but_late "$tmp/untouched.err"
is "$(cat "$tmp/untouched.err")" "" "where nobody interferes, nothing is said"

# An emptied buffer, after events were lost, makes no number of lost events that never were.
start_guest fast -n 0 -l onnnnnnnn
fast=$pid
start_kvmstat lossy -b 4 -H 0.25 12
lossy=$pid
until_true 5 grep -q "events lost" "$tmp/lossy.err"
echo >"$instances/kvmstat.$lossy/trace"
wait "$lossy"
is $? 3 "events lost, and the buffer emptied: status 3"
like "$(cat "$tmp/lossy.err")" 'trace.*by another program.*too low' "it is said"
is "$(grep -o 'lost: [0-9]*' "$tmp/lossy.err" | awk '$2 > 100000000')" "" "and no number is beyond belief"
end "$fast" KILL

# The line comes before the report that is spoiled.
"$kvmstat" -b 512 -H -p "$busy" 0.5 8 >"$tmp/both" 2>&1 &
kvm=$!
has_two() {
	[ "$(grep -c "^$busy	0	[1-9]" "$tmp/both")" -ge 2 ]
}
until_true 10 has_two
echo 0 >"$instances/kvmstat.$kvm/events/$event/enable" # an interval has just begun
wait "$kvm"
is $? 3 "with -p: status 3"
awk -F'\t' -v pid="$busy" '
	/by another program/ { told = 1 }
	$1 == pid && $2 == 0 { if (usual == 0) usual = $3; else if ($3 < usual / 2 && !told) bad = 1; n++ }
	$1 == pid && $2 == 1 { told = 0 }
	END { exit bad || n != 8 }' "$tmp/both"
ok $? "a line comes before the report that is too low"

# With -w, too, and the recording is there.
start_kvmstat recorded -b 512 -H -w "$tmp/w.dat" 0.25 8
recorded=$pid
until_true 5 test -s "$tmp/recorded.out"
echo 0 >"$instances/kvmstat.$recorded/events/$event/enable"
wait "$recorded"
is $? 3 "with -w: status 3"
like "$(cat "$tmp/recorded.err")" "events/$event/enable.*by another program.*too low" "and it is said"
is "$("$kvmstat" -H -r "$tmp/w.dat" 2>/dev/null | grep -c "^$busy	")" 2 "and there is a recording"
end "$busy" KILL
end "$known"

# All at once, as trace-cmd reset -a does with each instance.
start_guest again -n 0 -l oh -s 500
again=$pid
start_kvmstat reset -H -T u 0.25 16
reset=$pid
until_true 5 test -s "$tmp/reset.out"
for file in "$instances/kvmstat.$reset"/events/enable "$instances/kvmstat.$reset"/tracing_on; do
	echo 0 >"$file"
done
echo >"$instances/kvmstat.$reset/trace"
wait "$reset"
is $? 3 "events and tracing switched off at once: status 3"
is "$(tail -n 6 "$tmp/reset.out" | awk -F'\t' '$4 == 0')" "" "and counts in the later reports"
end "$again" KILL

done_testing
