#!/usr/bin/env bash
# kvmstat -m: what Performance Co-Pilot's own programs make of it.
. "$(dirname "$0")/lib.sh"
live_host
. "$here/pcp.sh"
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
sleep 0.4
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
words=$(sed -n '/^OUTPUT/,/^KEYS/p; /^METRICS/,/^ENVIRONMENT/p' "$tmp/manual" | xargs -d '\n' | tr -s ' ')
while read -r name kind unit type; do
	text=$(info -dtT "mmv.kvmstat.$name")
	like "$text" "Semantics: $kind  Units: $unit$" "$name: $kind, $unit"
	like "$text" "Data Type: $type  InDom" "$name: $type"
	meaning=$(sed -n 's/^mmv.*\[\(.*\)\]$/\1/p' <<<"$text")
	[ -n "$meaning" ] && grep -qF "$meaning" <<<"$words"
	ok $? "$name: what it is, in the manual's words: $meaning"
	help=$(sed -n '/^Help:/,$p' <<<"$text" | sed 1d | xargs -d '\n')
	[ -n "$help" ] && grep -qF "$help" <<<"$words"
	ok $? "$name: more exactly, in the manual's words: $help"
done <<-END
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
sleep 1.5 # or the replacement in the second after a change brings it back
mv "$mmv/kvmstat" "$tmp/moved"
until_true 5 has_values 2
ok $? "a file that somebody removed is back"
is "$(pcp_table)" "$(grep "^$web" "$tmp/sums")" "with the same counters"

# One exporter, and none that is dead.

"$kvmstat" -m 0.1 1 >"$tmp/out" 2>"$tmp/err"
is "$?$(cat "$tmp/out" "$tmp/err")" "1kvmstat: $mmv/kvmstat: kvmstat $kvm exports already (end that one, or leave -m out)" \
	"a second one is refused"
has_values 2
ok $? "and the first one goes on"
ids=$(info -f mmv.kvmstat.exits | grep -o 'inst.*or')
end "$kvm" KILL
is "$(info -f mmv.kvmstat.exits 2>&1 | grep -c value)" 0 "SIGKILL: the metrics are gone at the next fetch"
echo left >"$mmv/.kvmstat"
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
	"$kvmstat" -m 0.1 1 >"$tmp/out" 2>"$tmp/err"
	is "$?$(cat "$tmp/out" "$tmp/err")" "1kvmstat: $2" "$1: refused"
	is "$(ls -lA --time-style=full-iso "$mmv" 2>/dev/null)" "$before" "$1: untouched"
	nothing_left
	ok $? "$1: nothing is left"
	rm -rf "${mmv:?}"/* "$mmv"/.k*
}
echo mine >"$tmp/victim"
ln -s "$tmp/moved" "$mmv/kvmstat"
refused "a symbolic link, also to a file that kvmstat left" "$mmv/kvmstat: not made by kvmstat (remove it)"
ln -s "$tmp/victim" "$mmv/.kvmstat"
refused "a link in the place of the new file" "$mmv: File exists (-m needs room there for its file)"
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
real=$mmv
mv "$mmv" "$tmp/elsewhere"
refused "no directory" "$mmv: No such file or directory (install Performance Co-Pilot, or set PCP_TMP_DIR)"
chown nobody "$PCP_TMP_DIR"
ln -s "$tmp/elsewhere" "$real"
mmv=$tmp/elsewhere
refused "a directory that others can put in its place" "$real: a symbolic link that others can make (set PCP_TMP_DIR)"
chown root "$PCP_TMP_DIR"
mmv=$real
rm "$mmv"
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

# Somebody puts a file of theirs in the place of kvmstat's.
start_kvmstat robbed -m -H 0.1 50
kvm=$pid
echo theirs >"$tmp/theirs"
chown nobody "$tmp/theirs"
mv "$tmp/theirs" "$mmv/kvmstat"
wait "$kvm"
is "$?$(cat "$tmp/robbed.err" "$mmv/kvmstat" | tail -n 2)" \
	"1kvmstat: $mmv/kvmstat: not kvmstat's any more (somebody replaced it)
theirs" "a file that took its place stays"
is "$(ls -A "$mmv")" kvmstat "and nothing else"
rm "$mmv/kvmstat"

# A thread that runs several vCPUs: what nothing tells the vCPU of keeps its instance.
if software_backend; then
	start_kvmstat unknown -m -H 0.1
	kvm=$pid
	start_guest shared -d -1 -v 2 -n 100 -l o -w
	echo >&"$hold"
	until_true 10 test -s "$tmp/shared.out"
	sleep 0.5
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

done_testing
