#!/usr/bin/env bash
# Which rows a report has, and how they look.
. "$(dirname "$0")/lib.sh"
live_host
alone
needs strace

header='   pid vcpu |  exits :  haltx   irqx  irqwx    iox  mmiox |   irqs   emul   eptv'

is "$("$kvmstat" 0.05 3 2>"$tmp/err")" "$header" "no guest: the header"
is "$(cat "$tmp/err")" "kvmstat: no virtual machine is running" "and one line on stderr"
is "$("$kvmstat" -p $$ 0.05 3 2>"$tmp/err")" "$header" "no guest among those of -p: the header"
is "$(cat "$tmp/err")" "kvmstat: no virtual machine is running in the processes of -p" \
	"and one line on stderr"
is "$("$kvmstat" -H -p $$ 0.05 3 2>/dev/null)" "" "-H: no header"

# Guests that do nothing at all, from before kvmstat started and from after.
start_guest before -P -v 2
before=$pid
start_kvmstat rows 0.2
rows=$pid
until_true 5 test -s "$tmp/rows.out"
start_guest after -P
after=$pid
until_true 5 grep -q "^ *$after " "$tmp/rows.out"
end "$rows"
zeros='|      0 :      0      0      0      0      0 |      0      0      0'
report=$(printf '%6d %4d %s\n' "$before" 0 "$zeros" "$before" 1 "$zeros" "$after" 0 "$zeros")
is "$(tail -n 4 "$tmp/rows.out")" "$header"$'\n'"$report" \
	"vCPUs that never ran have their rows, in order, under a header"
is "$("$kvmstat" 0.05 2)" "$header"$'\n'"$report"$'\n'"$header"$'\n'"$report" \
	"more than one row: a header above each report"
is "$("$kvmstat" -p "$after" 0.01 41 | grep -n pid | cut -d: -f1 | xargs)" "1 22 43" \
	"one row: a header above every 20th report"
is "$("$kvmstat" -p "$after,$before" -H 0.05 1 | cut -f1,2 | xargs)" \
	"$before 0 $before 1 $after 0" "-p with two processes"
end "$after" KILL
is "$("$kvmstat" -H 0.05 1 | cut -f1 | uniq)" "$before" "an ended guest has no row"

# What ended within the interval is shown once more.
start_kvmstat ended -H 0.5 4
kvm=$pid
sleep 0.1
"$guest" -n 100 >"$tmp/short" 2>/dev/null
wait "$kvm"
p=$(cut -f1 "$tmp/short")
is "$(grep -c "^$p	" "$tmp/ended.out")" 1 "what it did is in one report, after its end, and in no other"

is "$("$kvmstat" -H 0.05 1 | awk -F'\t' '{ print NF }' | uniq)" 11 "-H: 11 fields"
is "$("$kvmstat" -HnT u 0.05 1 | awk -F'\t' '{ print NF }' | uniq)" 13 "-H with -n and -T: 13"
"$kvmstat" -HT u 0.25 2 >"$tmp/stamps"
like "$(cut -f1 "$tmp/stamps" | head -n 1)" '^[0-9]{10}\.[0-9]{2}$' "-T u: as many decimals as the interval"
is "$(awk -F'\t' 'NR == 1 { a = $1 } { b = $1 } END { printf "%.2f", b - a }' "$tmp/stamps")" 0.25 \
	"and an interval apart"
now=$(date +%s)
stamp=$("$kvmstat" -HT u 1 1 | cut -f1 | head -n 1)
[ "$stamp" -ge "$now" ] && [ "$stamp" -le "$(($(date +%s) + 1))" ]
ok $? "-T u: seconds since the epoch"
like "$(TZ=Asia/Kolkata "$kvmstat" -T d 1 1 | tail -n 1)" \
	"^$(TZ=Asia/Kolkata date +%Y-%m-%dT%H):[0-9]{2}:[0-9]{2}\+05:30 " "-T d: ISO 8601 with offset"
is "$("$kvmstat" -T d 0.1 1 | head -n 1 | sed 's/^ *//')" "time $header" "-T: its header"

# Names.
name_of() {
	start_guest "name$tests" -P -N "$@"
	"$kvmstat" -Hn -p "$pid" 0.01 1 | cut -f12
	end "$pid"
}
is "$(name_of -name web1)" web1 "-n: -name x"
is "$(name_of -name 'debug-threads=on,guest=a,,b=c')" 'a,b=c' "-n: -name guest=, with a comma in it"
is "$(name_of --id fire)" fire "-n: --id x"
is "$(name_of --name=cros)" cros "-n: --name=x"
is "$(name_of)" guest "-n: else the process's name"
is "$(name_of -name $'a\e[31mb\tc\xff\xc3\xa9\xc2\x85')" 'a\x1b[31mb\x09c\xff'$'\xc3\xa9''\xc2\x85' \
	"-n: control characters and what is no UTF-8 are escaped"

# A reader never sees half a report.
strace -qq -e trace=write -o "$tmp/trace" "$kvmstat" 0.02 5 >"$tmp/out"
is "$(grep -c '^write(1,' "$tmp/trace")" 5 "each report is one write"

# Without debugfs, the descriptors of processes tell.
start_guest two -n 0 -v 2 -T -s 1000
two=$pid
is "$(strace -qq -f -o /dev/null -e trace=fsopen -e inject=fsopen:error=EPERM:when=4+ \
	"$kvmstat" -H 0.3 1 | awk '{ print $1, $2, ($3 > 0) }')" \
	"$(printf '%s %s %s\n' "$before" 0 0 "$before" 1 0 "$two" 0 1 "$two" 1 1)" \
	"no debugfs: rows from /proc, vCPUs from the threads' names"
end "$two"
end "$before"

done_testing
