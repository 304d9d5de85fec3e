#!/usr/bin/env bash
# The command line: what is refused, why, and before anything is touched.
. "$(dirname "$0")/lib.sh"
traced=
has strace && traced="strace -qq -f -e trace=openat,open,mkdirat,fsopen -o $tmp/trace"

usage='usage: kvmstat [-cHhjmnsVz] [-b kib]
               [-e vmexit|mmio|ioport|msr|cpuid|hypercall] [-k column]
               [-l rows] [-p guest[,guest...]] [-r file | -w file] [-T d|u]
               [interval [count]]'
hint='kvmstat -h says what each option and column means.'
after="$usage
$hint"

# refused WORD WHY ARGS...: status 2, one line that names WORD and WHY, the usage, a hint
refused() {
	local word=$1 why=$2 status
	shift 2
	# shellcheck disable=SC2086 # a list of words
	$traced "$kvmstat" "$@" >"$tmp/out" 2>"$tmp/err"
	status=$?
	is "$status $(cat "$tmp/out")$(sed 1d "$tmp/err")" "2 $after" "refused: kvmstat $*"
	[[ $(head -n 1 "$tmp/err") == "kvmstat: "*"$word"*"$why"* ]]
	ok $? "and it says which word and why: $(head -n 1 "$tmp/err")"
	[ -n "$traced" ] || return
	! grep -q mkdirat "$tmp/trace"
	ok $? "before an instance is made"
}

for word in 0 0.0 0.009 1000000.1 1000001 nan inf 1x x1 '' ' 1' '1 ' +1 1e3 0x10 1. . 1.2.3 1,5 0.1234567890 99999999999999999999; do
	refused "\"$word\"" "not a number of seconds" "$word"
done
refused -1 "no such option" -1
for word in 0 1.5 x '' 4294967296 99999999999999999999; do
	refused "\"$word\"" "not a whole number" 1 "$word"
done
refused -1 "no such option" 1 -1
refused '"-1"' "not a whole number" 1 -- -1
refused '"-n"' "one operand too many" -- 1 2 -n
refused '"3"' "one operand too many" 1 2 3
refused -x "no such option" -x
refused --count "no such option" -n --count
refused -H- "no such option" -H-
refused -H- "no such option" -H- 1
refused -b "its value is missing" -b
refused -p "its value is missing" -H -p
for word in 0 -1 1k '' 1073741825; do
	refused "-b \"$word\"" "not a whole number from 1 to 1073741824" -b "$word"
done
for word in 0 '' 99999999999; do
	refused "-p \"$word\"" "neither a process id nor a guest's name" -p "$word"
done
refused '""' "neither a process id nor a guest's name" -p "$$,"
refused '""' "neither a process id nor a guest's name" -p "web,,db"
for word in 0 1.5 x '' -1 4294967296; do
	refused "-l \"$word\"" "not a whole number from 1 to 4294967295" -l "$word"
done
is "$("$kvmstat" 1 -V) $("$kvmstat" 1 2 --version) $("$kvmstat" 0.1 -nT u 1 -h)" \
	"$("$kvmstat" -V) $("$kvmstat" -V) $("$kvmstat" -h)" "options may stand behind operands"
refused -x "no such option" 1 2 -x
sleep 0 &
wait $!
after='' refused "\"$!\"" "no such process" -p "$!"
refused '"iso"' "neither d (local time by ISO 8601) nor u (seconds since 1970)" -T iso
refused '-r "-"' "give a file" -r -
refused '-w "-"' "give a file" -w -
# The kernel gives no thread's id to others while it lives.
if [ -x "$guest" ] && has_device /dev/kvm; then
	start_guest threads -n 0 -l h -s 1000
	has_thread() {
		thread=$(ls "/proc/$pid/task" | grep -vx "$pid" | head -n 1)
		[ -n "$thread" ]
	}
	until_true 5 has_thread
	after='' refused "\"$thread\"" "a thread; give its process" -p "$thread"
	end "$pid"
else
	skip_check "needs /dev/kvm" "refused: kvmstat -p with a guest's thread"
fi
refused -b "not with -r" -r x -b 8
refused -m "not with -r" -m -r x
refused -m "not with -e" -m -e vmexit
tables="neither vmexit, mmio, ioport, msr, cpuid nor hypercall"
refused '"exits"' "$tables" -e exits
refused '"MSR"' "$tables" -e MSR
refused '"msr:w"' "$tables" -e msr:w
refused '""' "$tables" -e mmio -e ''
refused '"cost"' "neither count nor time" -e mmio -k cost
refused '"exits"' "neither count nor time" -k exits -e mmio
for word in count time; do
	refused "-k \"$word\"" "only with -e" -k $word
done
for word in run% wait%; do
	refused "-k \"$word\"" "only with -c" -k $word
done
for word in cost pid vcpu name state '' exit; do
	refused "-k \"$word\"" "neither exits, haltx, irqx, irqwx, iox, mmiox, irqs, emul, eptv, run% nor wait%" -ck "$word"
done
refused -c "not with -r" -c -r x
refused -c "not with -e" -ce vmexit
refused -r "its value is missing" -r
refused 'a\x1b[31m' "not a number of seconds" $'a\e[31m'

version=$("$kvmstat" -V)
is "$version
$version" "$(sed -n '1,/^[0-9]/s/^\([0-9.]*\),.*/kvmstat \1/p' "$top/NEWS")
$(sed -n 's/^\.Os //p' "$top/kvmstat.1")" "-V, the newest version in NEWS, and the manual's, are the same"
is "$(sed -n '/^ \* Copyright/,/^ \*\/$/s/^ \*\( \|$\)//p' "$top/kvmstat.c")" "$(cat "$top/LICENSE")" "LICENSE is what kvmstat.c has"
"$kvmstat" -h >"$tmp/out" 2>"$tmp/err"
is "$?$(cat "$tmp/err")" 0 "-h: status 0, to stdout"
is "$(head -n 4 "$tmp/out")" "$usage" "-h: the usage"
is "$("$kvmstat" --help)$("$kvmstat" --version)" "$(cat "$tmp/out")$version" "--help, --version"
[ "$(wc -l <"$tmp/out")" -le 50 ] && ! grep -q '.\{80\}' "$tmp/out"
ok $? "-h fits on a screen of 50 lines and 79 columns"
for option in b c e h H j k l m n p r s T w z; do
	grep -q "^  -$option  " "$tmp/out" || echo "# $option"
done >"$tmp/missing"
is "$(cat "$tmp/missing")" "" "-h: the meaning of each option"
for column in pid vcpu exits haltx irqx irqwx iox mmiox irqs emul eptv run% wait% state vmexit mmio ioport \
	msr cpuid hypercall count count% time% "min us" "max us" "avg us"; do
	grep -q "^  $column  *[a-z?]" "$tmp/out" || echo "# $column"
done >"$tmp/missing"
is "$(cat "$tmp/missing")" "" "-h: the meaning of each column"
for option in h V; do
	"$kvmstat" -$option >/dev/full 2>"$tmp/err"
	is "$?$(cat "$tmp/err")" "1kvmstat: stdout: No space left on device" "-$option: stdout is full"
done

done_testing
