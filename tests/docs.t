#!/usr/bin/env bash
# Every example of README.md and kvmstat.1 does what is said of it.
. "$(dirname "$0")/lib.sh"
live_host
alone
command -v mandoc >/dev/null || skip_all "needs mandoc"

# examples: the commands after "$ " on stdin, a line each
examples() {
	awk '/^ *\$ / { sub(/^ *\$ /, ""); taking = 1 }
		taking {
			sub(/^ +/, "")
			line = line (line == "" ? "" : " ") $0
			if (!/\|$/) {
				print line
				line = ""
				taking = 0
			}
		}'
}

mkdir "$tmp/bin"
# Only the times are shorter: an interval above a second is 0.3, and 4 reports are enough.
cat >"$tmp/bin/kvmstat" <<-END
	#!/bin/bash
	args=()
	operand=0
	for arg; do
	    case \$arg in
	    -H|-n|-p|-nT|-HT|d|u) ;;
	    *) [[ \$last = -p ]] || case \$((operand += 1)) in
	        1) [[ \$arg = *.* ]] || arg=0.3 ;;
	        2) [[ \$arg -lt 4 ]] || arg=4 ;;
	        esac ;;
	    esac
	    args+=("\$arg")
	    last=\$arg
	done
	exec "$kvmstat" "\${args[@]}"
END
chmod +x "$tmp/bin/kvmstat"
PATH=$tmp/bin:$PATH
cd "$tmp" || exit 1

start_guest busy -n 0 -l oh -s 1000 -N -name guest=web1
busy=$pid
start_guest stuck -P -v 2
stuck=$pid

# run COMMAND: its output, of two seconds if it goes on for ever; nohup's is in its file
run() {
	rm -f kvmstat.log
	timeout -s INT 2 bash -c "$1"$'\nwait' 2>&1
	[ ! -e kvmstat.log ] || cat kvmstat.log
}

header='pid vcpu \|  exits :  haltx   irqx  irqwx    iox  mmiox \|   irqs   emul   eptv'
{
	examples <"$top/README.md"
	mandoc -Tascii "$top/kvmstat.1" | col -bx | sed -n '/^EXAMPLES/,/^DIAGNOSTICS/p' | examples
} | sort -u >"$tmp/commands"
count=0
while read -r command; do
	count=$((count + 1))
	out=$(run "$command")
	case $command in
	'kvmstat -n 1') want="^ *$busy    0 \|.* web1$" ;;
	*'print pid'*) want="^$stuck$" ;;
	*'head -n 1') want='^[0-9]+	0	[1-9]' ;;
	nohup*) want="^2[0-9T:+.-]* +$busy    0 \|.* web1$" ;;
	*pgrep*) want="^ *$busy    0 \|" ;;
	*'print t, n'*) want='^[0-9]{10}(\.[0-9])? [1-9][0-9]*$' ;;
	*) want='this example has a test of its own' ;;
	esac
	like "$out" "$want" "$command"
	case $command in
	*'print pid'*) is "$out" "$stuck" "and nothing else" ;;
	*pgrep*) ! grep -q "^ *$stuck" <<<"$out"
		ok $? "and no other" ;;
	'kvmstat -n 1') like "$out" "$header name$" "with the header" ;;
	esac
done <"$tmp/commands"
[ "$count" -ge 6 ]
ok $? "the examples were found ($count)"

# The three texts on options and columns say the same.
for option in b h H n p T V; do
	mandoc -Tascii "$top/kvmstat.1" | col -bx | grep -Eq "^     -$option( |\$)" &&
		"$kvmstat" -h | grep -q "^  -$option "
	ok $? "-$option is in the manual and in the usage"
done
synopsis=$(mandoc -Tascii "$top/kvmstat.1" | col -bx | sed -n '/^SYNOPSIS/,/^DESCRIPTION/p' | sed -n 2p |
	xargs -d '\n' | sed 's/^ *//; s/d | u/d|u/')
is "usage: $synopsis" "$("$kvmstat" -h | head -n 1)" "synopsis and usage are the same"
"$kvmstat" -h | sed -n '/^  pid/,/^  eptv/ { s/^  //; s/  */ /; p }' >"$tmp/help"
mandoc -Tascii -O width=200 "$top/kvmstat.1" | col -bx | sed -n '/^ *field/,/^ *11/p' | sed 1d |
	sed 's/^ *[0-9]* *//; s/  */ /g' >"$tmp/manual"
is "$(cat "$tmp/manual")" "$(cat "$tmp/help")" "manual and -h give the columns the same meaning"

# make demo, with guests of others and with its own.
"$here/demo" >"$tmp/demo" 2>&1
is "$?$(grep -c "^ *$busy    0" "$tmp/demo")" 05 "make demo reports five seconds of the guests there are"

end "$busy"
end "$stuck"
done_testing
