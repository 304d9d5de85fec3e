#!/usr/bin/env bash
# Every example of README.md and kvmstat.1 that is of a live host does what is said of it; docs.t has
# the others.
. "$(dirname "$0")/lib.sh"
live_host
alone
needs col jq mandoc musl-gcc trace-cmd kernelshark
. "$here/helpers/examples.sh"

# KernelShark warns root with a window; what it draws here nobody sees.
mkdir -m 700 "$tmp/home"
chmod 755 "$tmp"
chown nobody "$tmp/home"
cat >"$tmp/bin/kernelshark" <<-END
	#!/bin/bash
	HOME=$tmp/home XDG_RUNTIME_DIR=$tmp/home QT_QPA_PLATFORM=offscreen exec \\
	    setpriv --reuid nobody --regid nogroup --clear-groups $(command -v kernelshark) "\$@"
END
chmod +x "$tmp/bin/kernelshark"

start_guest busy -n 0 -l ohp -s 1000 -N -name guest=web1,debug-threads=on
busy=$pid
start_guest stuck -P -v 2 -N -name 'guest=a\"b'
stuck=$pid name='a\\"b' # as it is shown

header='pid vcpu \| exits : haltx  irqx irqwx   iox mmiox \|  irqs +emul  eptv'
# Those of now and of a minute ago.
dates="($(date +%F)|$(date -d '1 minute ago' +%F))"
seconds=$(date +%s)
seconds="($((seconds / 1000))|$((seconds / 1000 + 1)))"
# has_24: whether so many files are there
has_24() {
	local files=(host.*.dat)
	[ ${#files[@]} = 24 ]
}

while read -r command; do
	! offline "$command" || continue # docs.t
	case $command in
	'trace-cmd record'*) continue ;; # it takes the whole host: amd.t runs it on one of its own
	'kvmstat -m'* | pm* | *kvmstat.config) continue ;; # fleet.t
	*spins*) start_guest "spinning$tests" -T -n 0 -l x -N -name loop
		spinning=$pid ;;
	esac
	case $command in
	while*) # there are more than a day's files already
		for hour in {10..39}; do : >"host.01-$hour.dat"; done
		touch -d yesterday host.01-*.dat
		setsid bash -c "$command" 2>loop.err &
		until_true 60 has_24
		ok $? "$command"
		kill -- "-$!"
		until_true 10 eval "! pgrep -g $! >/dev/null"
		recorded=(host.??-????.dat)
		cp "${recorded[-1]}" host.27-0231.dat
		continue ;;
	*whole.dat) # of a recording that was cut
		"$kvmstat" -H -w host.dat 0.1 >cut.out &
		until_true 60 test -s cut.out
		end $! KILL ;;
	*'grep T03:0') command=${command/T03:0/$("$kvmstat" -HT d -r host.27-0231.dat | grep -om 1 'T..:')} ;;
	esac
	out=$(run "$command")
	status=$?
	case $command in
	'kvmstat -n 1') want="^ *$busy    0 \|.* web1$" ;;
	*'grep -w spins') want="^$spinning	0	.*	spins	loop$" ;;
	*jq*) want='^loop$' ;;
	*'grep -w still'*) want="^$stuck	2	.*	0\.0	0\.0	still	a" ;;
	'kvmstat -cn 1') want="^ *$stuck    1 \|( +0 [:|]?)+.* 0\.0   0\.0 still " ;;
	'kvmstat -ss 1') want="^ +-     3 \| +[1-9]" ;;
	'kvmstat -ss -e ioport'*) want="^ +-     3 \| 0x10:out .* [1-9][0-9]* +100\.00" ;;
	*'HnsT d -r host'*) want="^$dates[0-9T:+.-]* a" ;;
	*'grep T03:0') want="^$dates[0-9T:+.-]* +$busy    0 \|.* web1$" ;;
	*'-k exits'*) want="^ *$busy    0 \|" ;;
	*'-k wait%'*) want="^ *$busy    0 \|.* web1$" ;;
	*-nsz*) want="^ *$busy     1 \| .* web1$" ;;
	*.tsv) want="^$" ;;
	nohup*) want="^2[0-9T:+.-]* +$busy    0 \|.* web1$" ;;
	*'-p web1'*) want="^ *$busy    0 \|" ;;
	'kvmstat -n -e vmexit -l 5 1') want="^ *$busy    0 \| [A-Za-z_]+ +[1-9]" ;;
	'kvmstat -n -e msr'*) want="^ *$busy    0 \| 0x6e0:W .* [1-9][0-9]* +100\.00" ;;
	'kvmstat -n -e ioport'*) want="^ *$busy    0 \| 0x10:out .* [1-9][0-9]* +100\.00" ;;
	'kvmstat -w '*) want="^ *$busy    0 \|" ;;
	'kvmstat -r host'*) want="^ *$busy    0 \|" ;;
	'kvmstat -nT d -r host'*) want="^$dates[0-9T:+.-]* +$busy    0 \|.* web1$" ;;
	'trace-cmd report host'*) want="guest-[0-9]+ .* $seconds[0-9]{3}[.][0-9]+: kvm_" ;;
	kernelshark*) want='^Loading  "host.dat"$' ;;
	*) want='this example has a test of its own' ;;
	esac
	like "$out" "$want" "$command"
	case $command in
	*spins*) is "$(wc -l <<<"$out")" 1 "and nothing else"
		end "$spinning" ;;
	*'grep -w still'*) is "$(cut -f 15 <<<"$out")" "$name" "and nothing else"
		[[ $command != *!* ]] || is "$status" 1 "and the status tells" ;;
	*-nsz*) ! grep -q "^ *$stuck" <<<"$out"
		ok $? "and no other" ;;
	*host.tsv) is "$(grep -c "^[0-9.]*	-	3	[1-9]" host.tsv)" 3 "and the file has each report" ;;
	*kvm.tsv) like "$(cat kvm.tsv)" "^[0-9.]+	$busy	0	[1-9].*	web1$" "and the file has the report" ;;
	*'-p web1'*) ! grep -q "^ *$stuck" <<<"$out"
		ok $? "and no other" ;;
	'kvmstat -n 1') like "$out" "$header name$" "with the header" ;;
	esac
done <"$tmp/commands"

# A container's image may have nothing: no libc, and nothing mounted.
mkdir "$tmp/image"
musl-gcc -O2 -static -o "$tmp/image/kvmstat" "$top/kvmstat.c"
chroot "$tmp/image" /kvmstat -n 0.3 1 >"$tmp/static.out" 2>"$tmp/static.err"
like "$(cat "$tmp/static.out" "$tmp/static.err")" "^ *$busy    0 \|.* web1$" "a static kvmstat runs there"

done_testing
