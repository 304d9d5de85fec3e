#!/usr/bin/env bash
# Guests' names, and what becomes of the reports where they cannot be read.
. "$(dirname "$0")/lib.sh"
live_host
alone
own_name

# observer_of PID: the process that looks at others for that kvmstat
observer_of() {
	pgrep -P "$(pgrep -P "$1")"
}

# has_row FILE PID NAME: whether the last row of that process's has that name
has_row() {
	[ "$(awk -F'\t' -v pid="$2" '$1 == pid { name = $12 } END { print name }' "$tmp/$1.out")" = "$3" ]
}

# name_of WORDS...: the name of a guest with these words in its command line, once that could be read
name_of() {
	start_guest "name$tests" -P -N "$@"
	"$kvmstat" -Hn -p "$pid" 0.1 100 | awk -F'\t' '{ name = $12 } name != "guest" { exit } END { print name }'
	end "$pid"
}

# named ARGV0 NAME WORDS...: that a guest that was started so has that name, by which -p finds it
named() {
	start "named$tests" bash -c 'exec -a "$@"' bash "$1" "$guest" -P -N "${@:3}"
	until_true 10 grep -qs '^guest' "$tmp/named$tests.err"
	is "$("$kvmstat" -Hn -p "$2" 0.01 1 | cut -f1,12)" "$pid	$2" "the name in: ${1##*/} ${*:3}"
	end "$pid"
}
named /usr/bin/kvm web1 -id 109 -name web1,debug-threads=on -no-shutdown
named /usr/bin/kvm db,2 -id 110 -name db,,2,debug-threads=on
named qemu-system-x86_64 last -name first -name guest=last
named firecracker fc1 --id fc1 --api-sock /tmp/x
named firecracker web.sock --api-sock /tmp/web.sock
named cloud-hypervisor 4771496e --api-socket /run/vc/vm/4771496e/clh-api.sock
named runsc-sandbox mycontainer --platform=kvm boot --bundle=/root mycontainer
named /opt/app/hello hello
named '' guest
words=()
for ((i = 0; i < 18; i++)); do
	words+=("$(head -c 100000 /dev/zero | tr '\0' x)")
done
is "$(name_of --name guest=web1,debug-threads=on)" web1 "as QEMU takes it, behind two dashes, of any monitor"
is "$(name_of "${words[@]}" -name late)" late "a name behind 1.8 MB of other words"
long=$(printf 'é%.0s' {1..600})
is "$(name_of --id "$long")" "$(printf 'é%.0s' {1..511})" "a long name is cut in no character's middle"
is "$(name_of -name $'a\xe2\x80\xaeb\xe2\x80\x8bc\xe2\x81\xa6d\xef\xbb\xbfe\xc2\xad\xf3\xa0\x81\x81')" \
	'a\xe2\x80\xaeb\xe2\x80\x8bc\xe2\x81\xa6d\xef\xbb\xbfe\xc2\xad\xf3\xa0\x81\x81' \
	"characters that cannot be seen are escaped"

# A VMM that executes another one has that one's name from then on.
start_guest first -P -e -N -name first
first=$pid first_in=$hold
start_kvmstat executed -Hn 0.2
kvm=$pid
until_true 60 has_row executed "$first" first
ok $? "a VMM's name"
echo >&"$first_in"
until_true 60 has_row executed "$first" second
ok $? "and that of the one that it executed"
is "$("$kvmstat" -Hn -p second 0.01 1 | cut -f 1)" "$first" "-p finds that"
end "$kvm"
end "$first"

# A command line that whoever reads it waits for, longer than this test takes.  kvmstat has procfs in
# a mount of its own: there, its path is the one in that.
start_guest web -P -v 2 -N -name web1
web=$pid
start_guest slow -P -N -name slow1
slow=$pid
start slowly strace -f -qq -o /dev/null -P "/$slow/cmdline" -e trace=read \
	-e inject=read:delay_enter=100000000 "$kvmstat" -Hn 0.2
tracer=$pid
until_true 10 test -s "$tmp/slowly.out"
kvm=$(pgrep -P "$tracer")
before=$(wc -l <"$tmp/slowly.out")
sleep 1
[ "$(wc -l <"$tmp/slowly.out")" -ge $((before + 12)) ]
ok $? "a command line that gives no answer: the reports come on time"
until_true 20 has_row slowly "$web" web1 && has_row slowly "$slow" guest
ok $? "with the process's name, and the names of the others"
is "$(grep "^kvmstat: /proc" "$tmp/slowly.err")" "kvmstat: /proc/$slow/cmdline: no answer in time (the process's name stands for \
the guest's until it is read)" "and one line says so"
start_guest new -P -N -name new1
until_true 5 has_row slowly "$pid" new1
ok $? "one that starts then has its name"
end "$pid"
kill -TERM "$kvm"
before=${EPOCHREALTIME/./}
until_true 5 test ! -e "/proc/$kvm"
[ $((${EPOCHREALTIME/./} - before)) -lt 1000000 ]
ok $? "SIGTERM ends it within a second: $(((${EPOCHREALTIME/./} - before) / 1000)) ms"
end "$tracer" KILL # which would wait as long as it makes others wait
until_true 2 nothing_left
ok $? "and nothing is left"

# One that does not answer for a while.
start_kvmstat stopped -Hn 0.2
kvm=$pid
until_true 5 has_row stopped "$web" web1
kill -STOP "$(observer_of "$kvm")"
start_guest early -P -N -name early1
early=$pid
until_true 20 has_row stopped "$early" early1
ok $? "no answer: another one gives it"
kill -KILL "$(observer_of "$kvm")"
start_guest next -P -N -name next1
next=$pid
until_true 5 has_row stopped "$next" next1
ok $? "somebody ends the one that looks: there is another one"
for ((i = 0; i < 5; i++)); do
	kill -STOP "$(observer_of "$kvm")"
	start_guest "stopping$i" -P -N -name stopping
	until_true 20 has_row stopped "$pid" stopping
	start_guest "going$i" -P -N -name going
	until_true 5 has_row stopped "$pid" going
done
ok $? "however often that is"
end "$kvm"
is "$status" 143 "SIGTERM ends it"
nothing_left
ok $? "and nothing is left"
for child in $(pgrep -P $$ -x guest); do
	end "$child"
done

# Too many files are open, for some time.
start_guest web2 -P -N -name web2
web=$pid
start files strace -f -qq -o /dev/null -P "$web/cmdline" -e trace=openat \
	-e inject=openat:error=ENFILE:when=1..3 "$kvmstat" -Hn -p "$web" 0.1 8
wait "$pid"
is "$?$(cat "$tmp/files.err")" "0kvmstat: /proc/$web/cmdline: Too many open files in system (the process's \
name stands for the guest's until it is read)" "too many open files: one line, and status 0"
is "$(cut -f 12 "$tmp/files.out" | uniq -c | xargs)" "2 guest 6 web2" "and the name when there are fewer"
start forks strace -f -qq -o /dev/null -e trace=clone,clone3,fork \
	-e inject=clone,clone3,fork:error=EAGAIN:when=2..4 "$kvmstat" -Hn 0.1
tracer=$pid
until_true 5 has_row forks "$web" web2
kvm=$(pgrep -P "$tracer")
kill -KILL "$(observer_of "$kvm")"
start_guest web3 -P -N -name web3
until_true 20 has_row forks "$pid" web3
ok $? "too many processes to start another one: it is tried again"
end "$pid"
end "$kvm"
wait "$tracer"
mkdir -p "$tmp/pcp/mmv"
start metrics env PCP_TMP_DIR="$tmp/pcp" strace -f -qq -o /dev/null -P "$web/cmdline" -e trace=openat \
	-e inject=openat:error=ENFILE:when=1..20 "$kvmstat" -m -H 0.1
tracer=$pid
until_true 10 grep -qs '"guest":"guest"' "$tmp/pcp/mmv/kvmstat"
ok $? "-m: the process's name"
until_true 5 grep -q '"guest":"web2"' "$tmp/pcp/mmv/kvmstat" && ! grep -q '"guest":"guest"' "$tmp/pcp/mmv/kvmstat"
ok $? "and the guest's when it can be read"
end "$(pgrep -P "$tracer")"
wait "$tracer"
nothing_left
ok $? "and nothing is left"
done_testing
