#!/usr/bin/env bash
# README, "A fleet", METRICS in kvmstat(1), and the files of tests/fleet: from kvmstat -m to pmcd,
# archives, Prometheus and what Grafana asks it.
. "$(dirname "$0")/lib.sh"
live_host
. "$here/helpers/pcp.sh"
has_pcp
needs apt-get col curl dpkg-deb mandoc pmrep strace systemd-analyze
has_prometheus
alone
own_name
cd "$tmp" || exit 1

{
	examples <"$top/README.md"
	mandoc -Tascii "$top/kvmstat.1" | col -bx | examples
} | grep -E '^(kvmstat -m|pm|echo .log)' | awk '!seen[$0]++' >commands
is "$(wc -l <commands)" 6 "README and manual have six commands for a fleet"

# shortened START: the command of README or manual that begins so, shorter in time, and for $pmcd
shortened() {
	grep "^$1" commands | sed "s/-h kvm17/-h $pmcd/; s/-t 10/-t 0.5/; s/-T 1hour/-T 4sec/"
}
mkdir bin
printf '#!/bin/sh\nshift 2\nexec %s -m 0.5 "$@"\n' "$kvmstat" >bin/kvmstat
chmod +x bin/kvmstat

start_pmcd
start_guest web -n 0 -l oh -s 1000 -v 2 -N -name guest=web1
web=$pid
start_guest stuck -P -N -name guest=stuck
stuck=$pid
start_pmproxy

# The rates: what pmval and pmrep show are the table's.

start_kvmstat rates -m -H 1
kvm=$pid
until_true 5 pminfo -h "$pmcd" -f "mmv.kvmstat.exits[$web/0]" >/dev/null 2>&1
next_reports rates "$web"
pmval -h "$pmcd" -t 1 -s 5 -i "$web/0" -w 12 mmv.kvmstat.exits 2>&1 | sed '1,/^ *'"$web"'/d' | xargs >pmval.out
like "$(cat pmval.out)" '^([0-9.]+ ?){5}$' "pmval: five rates"
awk -F'\t' -v pid="$web" '$1 == pid && $2 == 0 { print $3 }' rates.out >exits
for rate in $(cat pmval.out); do
	awk -v rate="$rate" 'rate > 0 && rate > 0.97 * $1 && rate < 1.03 * $1 { found = 1 } END { exit !found }' exits ||
		echo "$rate"
done >strange
is "$(cat strange)" "" "each is that of an interval of the table: $(cat pmval.out), $(xargs <exits)"
end "$kvm"

# A file for node_exporter.

start_guest odd -P -N -name 'guest=a\"b'
odd=$pid
mkdir prom
sed "s|^kvmstat \(.*\) 10 1 |$kvmstat \1 0.5 1 |" "$here/fleet/textfile" >textfile
# with_names: whether it has written the file, and found the names in time
with_names() {
	bash textfile prom 2>textfile.err && ! grep -q 'guest="guest"' prom/kvm.prom
}
until_true 30 with_names
is "$?$(ls prom)" 0kvm.prom "textfile: a file"
is "$(promtool check metrics <prom/kvm.prom 2>&1)" "" "which promtool takes"
like "$(cat prom/kvm.prom)" "^kvm_exits_per_second\{pid=\"$web\",guest=\"web1\"\} [1-9][0-9.]*$" "and has each guest"
is "$(grep -F "\"$odd\"" prom/kvm.prom)" 'kvm_exits_per_second{pid="'"$odd"'",guest="a\\\\\"b"} 0.0
kvm_still{pid="'"$odd"'",guest="a\\\\\"b"} 1' "also one that has to be quoted"
end "$odd"

# The commands.

PATH=$tmp/bin:$PATH
bash -c "$(shortened 'kvmstat -m')
	echo \$! >kvm.pid; wait" &
children+=($!)
until_true 5 test -s kvm.pid
kvm=$(cat kvm.pid)
children+=("$kvm")
until_true 5 pminfo -h "$pmcd" -f "mmv.kvmstat.exits[$web/0]" >/dev/null 2>&1
sleep 1.5
out=$(bash -c "$(shortened 'pmrep -h')" 2>&1)
like "$out" "^ +$web/0 +$web/1 +$stuck/0 +$web/0 +$web/1 +$stuck/0" "pmrep: the vCPUs"
like "$out" '^ +[1-9][0-9.]+ +[1-9][0-9.]+ +0\.000 +[1-9][0-9.]+ +[1-9][0-9.]+ +0\.000$' "and their rates"
out=$(bash -c "$(shortened 'pminfo -h')" 2>&1)
like "$out" "\"$web/1\"\] value \"web1\"" "pminfo: whose they are"
bash -c "$(shortened echo)"
# While it records, a guest comes and goes.
bash -c "$(shortened 'pmlogger -h' | sed 's/pmlogger /&-l pmlogger.log /')" &
logger=$!
children+=("$logger")
sed -i 's/10 seconds/100 msec/' kvmstat.config
sleep 1
start_guest brief -n 500 -l oi -w
brief=$pid
until_true 5 test -s brief.out
sleep 1
end "$brief"
wait "$logger"
is "$?$(ls kvm17.0 kvm17.meta)" "0kvm17.0
kvm17.meta" "pmlogger: an archive"
out=$(bash -c "$(shortened 'pmrep -a')" 2>&1)
like "$out" "^ +$web/0 +$web/1" "pmrep shows it again: the vCPUs"
like "$out" '^ +[1-9][0-9.]+ +[1-9][0-9.]+' "and their rates"
pmdumplog kvm17 mmv.kvmstat.iox >dump
is "$(grep "$brief/0" dump | tail -n 1 | awk '{ print $NF }')" "$(expected oi 500 <brief.out | cut -f 7)" \
	"the last value of a guest that came and went is right"
[ "$(grep -c "$brief/0" dump)" -lt "$(grep -c "$web/0" dump)" ] && ! tail -n 3 dump | grep -q "$brief/0"
ok $? "and it is in the archive only while it was there: $(grep -c "$brief/0" dump) of $(grep -c "$web/0" dump) records"
awk -v name="$web/0" 'index($0, name) { if ($NF < last) bad = 1; last = $NF } END { exit bad }' dump
ok $? "the counters of the other one go on"

# Prometheus, with the configuration of tests/fleet, and the queries that Grafana makes.

curl -s "http://127.0.0.1:$pmproxy_port/metrics?names=mmv.kvmstat" >metrics.txt
like "$(cat metrics.txt)" "^mmv_kvmstat_exits\{.*guest=\"web1\".*instname=\"$web/0\".*\} [1-9][0-9]*$" \
	"pmproxy's /metrics: a line with labels for each vCPU"
is "$(grep -c '^mmv_kvmstat_exits{' metrics.txt)" 3 "of all of them"
like "$(cat metrics.txt)" "^# TYPE mmv_kvmstat_exits counter$" "as counters"
sed "s/'kvm17:44322', 'kvm18:44322'/'127.0.0.1:$pmproxy_port'/; s/10s/1s/" "$here/fleet/prometheus.yml" \
	>prometheus.yml
[ -s prometheus.yml ] && promtool check config prometheus.yml >/dev/null
ok $? "the configuration of Prometheus is valid"
api=127.0.0.1:$((pmcd_port + 2))
start prometheus prometheus --config.file=prometheus.yml --storage.tsdb.path=tsdb --web.listen-address="$api" \
	--log.level=error
query() {
	curl -sG "http://$api/api/v1/query" --data-urlencode "query=$1"
}
# has_result QUERY REGEX: whether Prometheus answers so
has_result() {
	query "$1" | grep -Eq -- "$2"
}
# query_of NUMBER: that query of tests/fleet/grafana.promql, with its comment
query_of() {
	awk -v number="$1" 'BEGIN { RS = "" } NR == number' "$here/fleet/grafana.promql"
}
rates=$(query_of 1)
until_true 20 has_result "$rates" '"guest":"web1".*"value":\[[0-9.]*,"[1-9]'
ok $? "Prometheus: the rates of exits, by guest"
nobody=$(query_of 3)
like "$(query "$nobody")" '"metric":\{"guest":"stuck","hostname":"[^"]+","pid":"'"$stuck"'"\},"value":\[[0-9.]+,"0"\]' \
	"and those that are stuck"
! has_result "$nobody" web1
ok $? "but not the others"
idle=$(query_of 2)
like "$(query "$idle")" '"instname":"'"$stuck"'/0"' "and vCPUs that do nothing"
! has_result "$idle" web1
ok $? "but not those that do something"

# The unit of systemd: valid, and what it starts works, with no more than it leaves.
sed "s|/usr/local/bin|$tmp/bin|" "$here/fleet/kvmstat.service" >kvmstat.service
# setting NAME: its value
setting() {
	sed -n "s/^$1=//p" kvmstat.service
}
is "$(systemd-analyze verify ./kvmstat.service 2>&1 | grep kvmstat)" "" "the unit for systemd is valid"
like "$(systemd-analyze security --offline=true ./kvmstat.service 2>&1 | tail -n 1)" ' [012][.][0-9] OK' \
	"and leaves little to who gets hold of it"
is "$(setting ExecStart)" "$tmp/bin/$(head -n 1 commands | sed 's/ >.*//')" "and starts what the command starts"
kill "$kvm"
until_true 5 test ! -e "$mmv/kvmstat"
ok $? "SIGTERM ends it, and removes its file"

# As a unit: tracefs and debugfs where systemd mounts them, the rest read only, but for PCP's
# directory, which is another user's.
allowed=$(setting CapabilityBoundingSet | tr '[:upper:]' '[:lower:]' | sed 's/cap_/+/g; s/ /,/g')
cat >as_unit <<-END
	#!/bin/bash
	mount -t tracefs nodev /sys/kernel/tracing
	mount -t debugfs nodev /sys/kernel/debug
	mount --bind "$mmv" "$mmv"
	mount -o remount,bind,ro /
	for dir in /home /root /dev/shm; do mount -t tmpfs -o ro nodev \$dir; done
	exec setpriv --no-new-privs --bounding-set="-all,$allowed" --inh-caps=-all "\$@"
END
chmod +x as_unit
chown nobody "$PCP_TMP_DIR" "$mmv"
start unit strace -f -o "$tmp/calls" unshare --mount --net --uts ./as_unit "$kvmstat" -m -H 0.5
until_true 10 grep -qs '"guest":"web1"' "$mmv/kvmstat"
ok $? "what the unit leaves kvmstat is enough: the counters, and names"
kvm=$(pgrep -x "$name" | head -n 1)
until_true 5 test -s unit.out
is "$(cat unit.err)" "" "and nothing is wrong"
# The system calls of kvmstat, up to its end and that of its other processes
kill "$kvm"
wait "$pid"
nothing_left
ok $? "nor is anything left"
sed -n "/execve(\"[^\"]*$name\"/,\$ p" calls | sed -n 's/^[0-9]* *\([a-z0-9_]*\)(.*/\1/p' | sort -u >called
# calls_of GROUP: the system calls in it
calls_of() {
	local call
	systemd-analyze syscall-filter "$1" 2>/dev/null | sed -n 's/^    \([@a-z0-9_-]*\)$/\1/p' | while read -r call; do
		case $call in @*) calls_of "$call" ;; *) echo "$call" ;; esac
	done
}
calls_of "$(setting SystemCallFilter)" | sort -u >filter
is "$(comm -23 called filter)" fsopen "its system calls are those that the unit allows, and one that it does without: $(wc -l <called)"
[ "$(wc -l <called)" -gt 30 ]
ok $? "which are some"
is "$(sed -n 's/.*socket\(pair\)*(\(AF_[A-Z]*\).*/\2/p' calls | sort -u | xargs)" "$(setting RestrictAddressFamilies)" \
	"and its sockets, too"
chown root "$PCP_TMP_DIR" "$mmv"
# All of its processes are killed: what systemd runs then
start_kvmstat group -m 0.5
pkill -KILL -x "$name"
wait "$pid" 2>/dev/null # and no word of the shell's
is "$(ours)" "kvmstat.$pid" "all of the service killed: the instance is left"
sh -c "$(setting ExecStopPost | sed "s/^-//; s|$tmp/bin/kvmstat|$kvmstat|")" >out 2>&1
is "$?$(ours)" 0 "ExecStopPost removes it"
end "$web"
end "$stuck"

# A thousand guests start and end while PCP fetches as fast as it can.

start_kvmstat churn -m -H 0.02
kvm=$pid
until_true 5 pminfo -h "$pmcd" mmv.kvmstat.exits >/dev/null 2>&1
ok $? "a kvmstat that is started right after another one is seen"
start fetch "$here/helpers/fetch.py" "$pmcd"
fetch=$pid
churn() {
	for ((i = 0; i < 250; i++)); do
		# shellcheck disable=SC2016 # the inner shell's
		bash -c 'exec "$0" -n 20 -l oi -N -name guest=g$$' "$guest" >/dev/null 2>&1
	done
}
workers=()
for _ in 1 2 3 4; do
	churn &
	workers+=($!)
done
wait "${workers[@]}"
sleep 0.2
echo >&"$hold"
wait "$fetch"
is "$?$(cat fetch.err)" 0 "PCP fetches while 1,000 guests start and end"
is "$(sed '$d' fetch.out | head -n 5)" "" "no wrong value: $(tail -n 1 fetch.out)"
[ "$(tail -n 1 fetch.out | cut -d ' ' -f 1)" -gt 500 ] && [ "$(tail -n 1 fetch.out | cut -d ' ' -f 5)" -gt 100 ]
ok $? "it saw many, with counts"
pminfo -h "$pmcd" -f mmv.kvmstat.vcpus | grep -q 'value 0'
ok $? "pmcd is alive, and no vCPU is left"
end "$kvm" KILL
like "$(pminfo -h "$pmcd" -f mmv.kvmstat.vcpus 2>&1)" 'Unknown metric name' "SIGKILL: the metrics are gone at the next fetch"

done_testing
