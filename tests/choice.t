#!/usr/bin/env bash
# Which guests and rows are reported: -p with names, -s, -k, -l and -z.
. "$(dirname "$0")/lib.sh"
live_host
alone
needs strace

# Two guests of one name, one of which does more, one that does nothing, and one of another name
# that a terminal must not get.
start_guest some -d -w -T -v 2 -l oh -n 100 -s 5000 -N -name guest=web1,debug-threads=on
some=$pid some_in=$hold
start_guest more -d -w -T -v 1 -l oh -n 700 -s 1000 -N -name guest=web1
more=$pid more_in=$hold
start_guest none -P -v 3 -N -name guest=db
none=$pid
start_guest odd -P -N -name $'guest=a\tb\\'
odd=$pid
sleep 0 &
gone=$!
wait "$gone"

# pids ARGS...: those of the rows that kvmstat prints
pids() {
	"$kvmstat" -H "$@" 0.05 1 2>"$tmp/err" | cut -f 1 | uniq | xargs
}

is "$(pids -p web1)" "$(printf '%s\n' "$some" "$more" | sort -n | xargs)" "-p NAME: all guests of that name"
is "$(pids -p "db,$more")" "$(printf '%s\n' "$none" "$more" | sort -n | xargs)" "-p NAME,PID"
is "$(pids -p 'a\x09b\\')" "$odd" "a name as -n shows it"
is "$(pids -p 'web*')" "$(pids -p web1)" "-p PATTERN: all that it matches"
is "$(pids -p 'a[\]x09*')" "$odd" "as -n shows them"
is "$("$kvmstat" -H -p "$gone,$none" 0.05 1 2>"$tmp/err" | cut -f 1 | uniq) $(cat "$tmp/err")" \
	"$none kvmstat: -p \"$gone\": no such process (the other guests are reported)" "-p of one that has ended and others"
for name in web web11 WEB1 'guest=web1' 'a?' $'a\tb\\' 1.5 -1; do
	"$kvmstat" -p "$name" 0.05 1 >"$tmp/out" 2>"$tmp/err"
	is "$? $(cat "$tmp/out")" "2 " "-p with a name that no guest has: $name"
	like "$(head -n 1 "$tmp/err")" 'no guest has this name .kvmstat -n 1 1 shows their names' "and how to see them"
done
"$kvmstat" -p web1,nobody 0.05 1 >"$tmp/out" 2>"$tmp/err"
is "$? $(cut -d : -f 1-2 "$tmp/err" | head -n 1)" '2 kvmstat: -p "nobody"' "also beside one that some have"

# What they do, in an interval: 200 and 700 times through the loop.
start_kvmstat rows -HT u -w "$tmp/all.dat" 4 1
kvm=$pid
start_kvmstat named -H -p web1 4 1
named=$pid
echo >&"$some_in"
echo >&"$more_in"
wait "$kvm" "$named"
is "$(cut -f 1-3 "$tmp/named.out")" "$(grep -e "	$some	" -e "	$more	" "$tmp/rows.out" | cut -f 2-4)" \
	"-p NAME: the counts are those without it"

# from OPTIONS...: the report of the recording, pid, vcpu and exits
from() {
	"$kvmstat" -H "$@" -r "$tmp/all.dat" | cut -f 1-3
}

is "$(from | sort)" "$(cut -f 2-4 "$tmp/rows.out" | sort)" "the recording has the rows of the report"
total=$(from | awk -v pid="$some" '$1 == pid { n += $3 } END { print n }')
most=$(from | awk -v pid="$more" '$1 == pid { print $3 }')
is "$(from -s)" "$(printf '%s\n' "$some	2	$total" "$more	1	$most" "$none	3	0" "$odd	1	0" | sort -n)" \
	"-s: a row for each guest, its vCPUs' sum and number"
is "$(from -ss)" "-	7	$((total + most))" "-ss: one for the host"
is "$(from -sz -k exits -l 1)" "$more	1	$most" "-szk exits -l 1: the busiest guest"
is "$(from -k exits -l 2 | sed -n 1p)" "$more	0	$most" "-k exits: the busiest vCPU first"
is "$(from -k exits | tail -n +4)" "$(from | awk '$3 == 0')" "equal ones in order of pid and vCPU"
is "$(from -z | wc -l)" 3 "-z: only rows with counts"
is "$(from -p web1 -z | cut -f 1 | uniq | wc -l)" 2 "-r -p NAME"
"$kvmstat" -p nobody -r "$tmp/all.dat" >"$tmp/out" 2>"$tmp/err"
is "$? $(cat "$tmp/out")" "2 " "-r -p with a name that no guest of the recording has"
"$kvmstat" -H -z -p db -r "$tmp/all.dat" >"$tmp/out" 2>"$tmp/err"
is "$?$(cat "$tmp/out" "$tmp/err")" "0" "-z: that all rows are left out is not: no virtual machine"

# -e: keys are summed, too, and -l is for each row's keys.
start_guest keys -v 2 -l oom -n 0 -s 1000 -d -N -name guest=keys
echo >&"$hold"
"$kvmstat" -w "$tmp/keys.dat" -He ioport -p keys 0.5 1 >"$tmp/keys"
is "$("$kvmstat" -Hse ioport -r "$tmp/keys.dat" | cut -f 1-4)" \
	"$(awk -F'\t' '{ n += $4 } END { print $1 "\t2\t" $3 "\t" n }' "$tmp/keys")" "-e -s: a guest's keys"
end "$pid" KILL
"$kvmstat" -w "$tmp/all_keys.dat" -He vmexit -p db 0.1 1 >"$tmp/out"
is "$(cut -f 2,3 "$tmp/out" | xargs)" "0 - 1 - 2 -" "-e: a vCPU without exits"
is "$("$kvmstat" -Hze vmexit -r "$tmp/all_keys.dat")" "" "-e -z: is left out"

# The options with one another, live.
for options in "-cs" "-ck run%" "-ck wait% -l 1" "-csz" "-ss" "-cnss" "-jcn" "-jss -e mmio" "-m -s" "-m -c" "-n -s -k emul" "-cn -T d" "-se mmio -l 2" \
	"-z -e ioport -k time" "-c -w $tmp/w.dat"; do
	mkdir -p "$tmp/pcp/mmv"
	# shellcheck disable=SC2086 # a list of words
	PCP_TMP_DIR=$tmp/pcp "$kvmstat" $options 0.1 2 >"$tmp/out" 2>"$tmp/err"
	is "$?$(cat "$tmp/err")" 0 "kvmstat $options"
done

# A guest that has ended, though its parent has not waited for it, has ended.
# shellcheck disable=SC2016 # the inner shell's
start parent bash -c '"$1" -n 0 -l oh -s 1000 & echo $!; exec sleep 1000' bash "$guest"
parent=$pid
until_true 10 grep -q '^guest' "$tmp/parent.err"
zombie=$(cat "$tmp/parent.out")
start_kvmstat zombie -H -p "$zombie" 0.2
kill -KILL "$zombie"
wait "$pid"
is "$?$(grep State "/proc/$zombie/status")" "0State:	Z (zombie)" "-p of a guest that nobody waited for ends with it"
"$kvmstat" -p "$zombie" 0.1 1 >/dev/null 2>"$tmp/err"
is "$?$(head -n 1 "$tmp/err")" "2kvmstat: -p \"$zombie\": no such process" "and is refused then"
end "$parent"

done_testing
