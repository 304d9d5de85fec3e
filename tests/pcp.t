#!/usr/bin/env bash
# kvmstat -m: what Performance Co-Pilot's own programs make of it.
. "$(dirname "$0")/lib.sh"
live_host
. "$here/helpers/pcp.sh"
has_pcp
needs col mandoc
alone
own_name
counters='exits haltx irqx irqwx iox mmiox irqs emul eptv'
# shellcheck disable=SC2086 # a list of words
metrics=$(printf 'mmv.kvmstat.%s ' $counters)

# table: of what info OPTIONS... METRICS... printed, each (pid, vcpu) and its counters
table() {
	awk '/^mmv/ { sub(/.*[.]/, ""); metric = $1 }
		/^ *inst/ { split($0, quoted, "\""); seen[quoted[2]]; n[quoted[2], metric] = $NF }
		END {
			for (vcpu in seen) {
				line = vcpu; sub("/", "\t", line)
				for (i = 1; i <= split("'"$counters"'", names, " "); i++)
					line = line "\t" n[vcpu, names[i]]
				print line
			}
		}' | sort -n -k1,1 -k2,2
}

# pcp_table: the same by the agent, now
pcp_table() {
	# shellcheck disable=SC2086
	info -f $metrics 2>&1 | table
}

# has_values: whether the agent has as many instances
has_values() {
	[ "$(info -f mmv.kvmstat.exits 2>/dev/null | grep -c inst)" = "$1" ]
}

# The values: those of the table, summed; and everything that tells what they are.

start_kvmstat first -m -H 0.1
kvm=$pid
is "$(ls -A "$mmv")$(stat -c ' %U %a' "$mmv/kvmstat")" "kvmstat root 644" "the file is there, for all to read"
is "$(info -f mmv.kvmstat.vcpus | grep value)" "    value 0" "without guests: no vCPU"
start_guest odd -n 50 -l o -w -N -name $'guest=o"d\\d\t\xff'
odd=$pid
start_guest web -d -v 2 -n 300 -l ohm -w -N -name guest=web1
web=$pid
echo >&"$hold"
until_true 5 has_values 3
until_true 10 test -s "$tmp/web.out"
next_reports first "$web"
pcp_table >"$tmp/values"
sums "$tmp/first.out" | grep -e "^$web" -e "^$odd" >"$tmp/sums"
is "$(cat "$tmp/values")" "$(cat "$tmp/sums")" "each counter is the sum of the table's"
is "$(grep "^$web" "$tmp/values")" "$(expected ohm 300 <"$tmp/web.out")" "and what the guest did"
is "$(info -f mmv.kvmstat.name | sed -n 's/.* or //p')" "\"$odd/0\"] value \"o\"d\\\\d\\x09\\xff\"
\"$web/0\"] value \"web1\"
\"$web/1\"] value \"web1\"" "the names, escaped as in the table"
like "$(info -l mmv.kvmstat.exits)" "$web/0.*\"guest\":\"web1\"" "a label has the name"
like "$(info -l mmv.kvmstat.exits | grep -F "$odd/0")" '"guest":"o\\"d\\\\\\\\d\\\\x09\\\\xff"' \
	"also one that has to be quoted"
is "$(info -f mmv.kvmstat.interval mmv.kvmstat.lost mmv.kvmstat.vcpus | xargs)" \
	"mmv.kvmstat.interval value 100000000 mmv.kvmstat.lost value 0 mmv.kvmstat.vcpus value 3" \
	"and the values of the host"
"$pmdas/mmv/mmvdump" "$mmv/kvmstat" >"$tmp/dump"
is $? 0 "mmvdump reads it"

mandoc -Tascii -O width=200 "$top/kvmstat.1" | col -bx >"$tmp/manual"
words=$(sed -n '/^OUTPUT/,/^KEYS/p; /^METRICS/,/^RIGHTS/p' "$tmp/manual" | xargs -d '\n' | tr -s ' ')
# described: by lines of stdin, each a metric with its semantics, unit and type
described() {
	while read -r name kind unit type; do
		text=$(info -dtT "mmv.kvmstat.$name")
		like "$text" "Semantics: $kind  Units: $unit$" "$name: $kind, $unit"
		like "$text" "Data Type: $type  InDom" "$name: $type"
		meaning=$(sed -n 's/^mmv.*\[\(.*\)\]$/\1/p' <<<"$text")
		[ -n "$meaning" ] && grep -qF "$meaning" <<<"$words"
		ok $? "$name: what it is, in the manual's words: $meaning"
	done
}
described <<-END
	$(printf '%s counter count 64-bit unsigned int\n' $counters)
	name discrete none string
	vcpus instant count 64-bit unsigned int
	lost counter count 64-bit unsigned int
	interval discrete nanosec 64-bit unsigned int
END
is "$(info mmv.kvmstat | wc -l)" 13 "and there are no other metrics"
for name in $counters; do
	is "$(info -t "mmv.kvmstat.$name" | tr -d '[]')" \
		"mmv.kvmstat.$("$kvmstat" -h | sed -n "s/^  \($name \) */\1/p")" "$name: as the column of that name"
done

# Guests come and go: the counters of those that stay go on.

end "$odd"
until_true 5 has_values 2
ok $? "a guest that ends: its instance is gone"
is "$(pcp_table)" "$(grep "^$web" "$tmp/sums")" "the counters of the other one go on"
mv "$mmv/kvmstat" "$tmp/moved"
until_true 5 has_values 2
ok $? "a file that somebody removed is back"
is "$(pcp_table)" "$(grep "^$web" "$tmp/sums")" "with the same counters"

# One exporter, and none that is dead.

"$kvmstat" -m 0.1 1 >"$tmp/out" 2>"$tmp/err"
is "$?$(cat "$tmp/out" "$tmp/err")" "1kvmstat: $mmv/kvmstat: kvmstat $kvm already exports (end that one, or leave -m out)" \
	"a second one is refused"
has_values 2
ok $? "and the first one goes on"
ids=$(info -f mmv.kvmstat.exits | grep -o 'inst.*or')
end "$kvm" KILL
is "$(info -f mmv.kvmstat.exits 2>&1 | grep -c value)" 0 "SIGKILL: the metrics are gone at the next fetch"
echo left >"$mmv/.kvmstat.0123456789abcdef"
start_kvmstat again -m -H 0.1
kvm=$pid
until_true 5 has_values 2
ok $? "the next one starts cleanly"
is "$(info -f mmv.kvmstat.exits | grep -o 'inst.*or')" "$ids" "and vCPUs have the same ids"
is "$(ls -A "$mmv")" kvmstat "and nothing but its file is there"
for sig in INT TERM HUP QUIT; do
	end "$kvm" "$sig"
	is "$(ls -A "$mmv")" "" "SIG$sig: the file is removed"
	start_kvmstat "again$sig" -m -H 0.1
	kvm=$pid
done
end "$kvm"
"$kvmstat" -m 0.1 2 >/dev/null
is "$?$(ls -A "$mmv")" 0 "and so it is after the last report"
end "$web"

# refused WHAT LINE: kvmstat -m ends with the line, status 1, and nothing of its own left
refused() {
	local before
	before=$(ls -lA --time-style=full-iso "$mmv" 2>/dev/null)
	# shellcheck disable=SC2086 # a command
	$kvmstat -m 0.1 1 >"$tmp/out" 2>"$tmp/err"
	is "$?$(cat "$tmp/out" "$tmp/err")" "1kvmstat: $2" "$1: refused"
	is "$(ls -lA --time-style=full-iso "$mmv" 2>/dev/null)" "$before" "$1: untouched"
	nothing_left
	ok $? "$1: nothing is left"
	rm -rf "${mmv:?}"/* "$mmv"/.k*
}
echo mine >"$tmp/victim"
ln -s "$tmp/moved" "$mmv/kvmstat"
refused "a symbolic link, also to a file that kvmstat left" "$mmv/kvmstat: not made by kvmstat (remove it)"
is "$(cat "$tmp/victim")" mine "and what they point to is as it was"
mkfifo "$mmv/kvmstat"
refused "a FIFO" "$mmv/kvmstat: not made by kvmstat (remove it)"
mkdir "$mmv/kvmstat"
refused "a directory" "$mmv/kvmstat: not made by kvmstat (remove it)"
seq 1000 >"$mmv/kvmstat"
refused "another file" "$mmv/kvmstat: not made by kvmstat (remove it)"
cp "$tmp/moved" "$mmv/kvmstat"
chown nobody "$mmv/kvmstat"
refused "another user's file" "$mmv/kvmstat: not made by kvmstat (remove it)"
mount -t tmpfs -o size=8k nodev "$mmv"
refused "a full disk" "$mmv: No space left on device (-m needs room there for its file)"
umount "$mmv"
# faulty ERROR WHEN: kvmstat with that openat() failing, of those in PCP's directory
faulty() {
	# shellcheck disable=SC2317 # refused() calls it
	strace -qq -o /dev/null -P "$mmv" -e trace=openat -e "inject=openat:error=$1:when=$2" "$plain" "${@:3}"
}
plain=$kvmstat
kvmstat='faulty EACCES 2' refused "an old file that cannot be opened" "$mmv: Permission denied (run as root)"
kvmstat='faulty ENFILE 2' refused "too many files, at the old one" \
	"$mmv: Too many open files in system (raise the limit of open files: ulimit -n, or sysctl fs.file-max)"
kvmstat='faulty EMFILE 4' refused "too many files, at the new one" \
	"$mmv: Too many open files (raise the limit of open files: ulimit -n, or sysctl fs.file-max)"
kvmstat='faulty EROFS 4' refused "a file system that is read only" \
	"$mmv: Read-only file system (see DIAGNOSTICS in kvmstat(1))"
kvmstat=$plain
mv "$mmv" "$tmp/elsewhere"
refused "no directory" "$mmv: No such file or directory (install Performance Co-Pilot, or set PCP_TMP_DIR)"
mkdir "$mmv"

# The directory is found as PCP's own programs find it.
printf '# PCP_TMP_DIR=/no\nPCP_TMP_DIR=%s\nPCP_OTHER=1\n' "$PCP_TMP_DIR" >"$tmp/pcp.conf"
PCP_TMP_DIR='' PCP_CONF=$tmp/pcp.conf "$kvmstat" -m 5 >/dev/null 2>&1 &
children+=($!)
until_true 10 test -e "$mmv/kvmstat"
ok $? "PCP_CONF names the file that names the directory"
end $!
PCP_TMP_DIR='' PCP_CONF=$tmp/none refused "no configuration" \
	"$tmp/none: No such file or directory (install Performance Co-Pilot, or set PCP_TMP_DIR)"
PCP_TMP_DIR='' PCP_CONF=$tmp/victim refused "a configuration without it" \
	"$tmp/victim: no PCP_TMP_DIR (set it in the environment)"

# Somebody makes files in the directory, where kvmstat wants to have its own.
in_place='File exists (remove what somebody put there in the place of kvmstat'"'"'s file)'

# ends WHAT NAME STATUS TEXT: the kvmstat of that name, $kvm, ends so, with that as the last line on stderr, and leaves no values
ends() {
	until_true 3 has_ended
	[ "$?" = 0 ] || kill "$kvm"
	wait "$kvm"
	is "$? $(tail -n 1 "$tmp/$2.err")" "$3 $4" "$1: kvmstat ends, and says why"
	until_true 5 has_values 0
	ok $? "$1: there are no values that stay as they are"
}
# has_ended: whether $kvm has, or is about to
has_ended() {
	! grep -qs '^State:.[^Z]' "/proc/$kvm/status"
}
ln -s "$tmp/victim" "$mmv/.kvmstat"
start_kvmstat robbed -m -H 0.1
kvm=$pid
is "$(ls -A "$mmv" | xargs)$(readlink "$mmv/.kvmstat")" ".kvmstat kvmstat$tmp/victim" "a link called .kvmstat is in nobody's way"
rm "$mmv/.kvmstat"
start_guest steady -d -n 200 -l oh -w
steady=$pid
until_true 5 has_values 1
rm "$mmv/kvmstat"
until_true 5 test -e "$mmv/kvmstat"
ok $? "where somebody removes the file, there is another one"
until_true 5 has_values 1
echo theirs >"$tmp/theirs"
chown nobody "$tmp/theirs"
mv "$tmp/theirs" "$mmv/kvmstat"
ends "a file in its place" robbed 1 "kvmstat: $mmv: $in_place"
is "$(cat "$mmv/kvmstat")$(ls -A "$mmv")" theirskvmstat "a file in its place: it stays, and no other is there"
rm "$mmv/kvmstat"
start_kvmstat robbed2 -m -H 0.1
kvm=$pid
end "$kvm"
is "$status$(ls -A "$mmv")" 143 "SIGTERM ends it, and its file goes"

# A full disk: the file that is there does for the same vCPUs, but not for others.
mount -t tmpfs -o size=200k nodev "$mmv"
start_kvmstat robbed3 -m -H 0.1
kvm=$pid
until_true 5 has_values 1
dd if=/dev/zero of="$mmv/.full" bs=4k 2>/dev/null
until_true 5 has_rows robbed3 "$steady" $(($(grep -c "^$steady	0	" "$tmp/robbed3.out") + 20))
ok $? "a full disk: the reports go on while no vCPU comes"
start_guest late -P
late=$pid
ends "a full disk" robbed3 1 "kvmstat: $mmv: No space left on device (-m needs room there for its file)"
end "$late"
umount "$mmv"
end "$steady"

# A thread that runs several vCPUs: what nothing tells the vCPU of keeps its instance.
if software_backend; then
	start_kvmstat unknown -m -H 0.1
	kvm=$pid
	start_guest shared -d -1 -v 2 -n 100 -l o -w
	echo >&"$hold"
	until_true 10 test -s "$tmp/shared.out"
	next_reports unknown "$pid"
	is "$(pcp_table)" "$(sums "$tmp/unknown.out" | sort -n -k1,1 -k2,2)" "the instance PID/? stays, with its counters"
	like "$(pcp_table)" "^$pid	\?	[1-9]" "and is there"
	end "$pid"
	end "$kvm"
fi

# 2,048 vCPUs, and guests with large numbers of them.
for i in 1 2 3 4; do
	start_guest "many$i" -P -v 512
done
start_kvmstat large -m -H 0.5
kvm=$pid
until_true 20 has_values 2048
ok $? "2,048 vCPUs: each has an instance"
is "$(info -f mmv.kvmstat.exits | sed -n 's/.*inst .\([0-9]*\) or.*/\1/p' | sort -u | wc -l)" 2048 "with an id of its own"
is "$(info -f mmv.kvmstat.vcpus | grep value)" "    value 2048" "and they are counted"
end "$kvm"


# -c: the scheduler's times.

# run_now: the nanoseconds that the vCPU ran, by its metric and by the scheduler
run_now() {
	info -f mmv.kvmstat.run | awk '/inst/ { printf "%s ", $NF }'
	cut -d ' ' -f 1 "/proc/$spin/task/$(grep -lx "CPU 0/KVM" "/proc/$spin/task"/*/comm | cut -d / -f 5)/schedstat"
}
start_guest spin -T -l x -n 0
spin=$pid
start_kvmstat times -cm -p "$spin" 0.1
until_true 5 has_values 1
described <<-END
	run counter nanosec 64-bit unsigned int
	wait counter nanosec 64-bit unsigned int
END
is "$(info mmv.kvmstat | wc -l)" 15 "and there are no other metrics"
sleep 0.3
before=$(run_now)
sleep 1
after=$(run_now)
awk -v before="$before" -v after="$after" 'BEGIN {
	split(before, b); split(after, a)
	exit !(a[1] - b[1] > 5e8 && a[1] - b[1] > a[2] - b[2] - 3e8 && a[1] - b[1] < a[2] - b[2] + 3e8)
}'
ok $? "-c: mmv.kvmstat.run grows as the thread's own time (from $before to $after)"
is "$(info -f mmv.kvmstat.wait | grep -c 'inst.*value [0-9]')" 1 "and there is one of the time that it waited"
end "$spin" KILL
end "$pid"

done_testing
