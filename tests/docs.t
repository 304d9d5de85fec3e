#!/usr/bin/env bash
# Every example of README.md and kvmstat.1 does what is said of it.
. "$(dirname "$0")/lib.sh"
live_host
alone
needs col mandoc musl-gcc perl trace-cmd kernelshark

mkdir "$tmp/bin"
# Only the times are shorter: an interval above a second is 0.3, and 4 reports are enough.
cat >"$tmp/bin/kvmstat" <<-END
	#!/bin/bash
	args=()
	operand=0
	for arg; do
	    case \$arg in
	    -*|d|u) ;;
	    *) [[ \$last = -[prwekl] ]] || case \$((operand += 1)) in
	        1) [[ \$arg = *.* ]] || arg=0.3 ;;
	        2) [[ \$arg -lt 4 ]] || arg=4 ;;
	        esac ;;
	    esac
	    args+=("\$arg")
	    last=\$arg
	done
	exec "$kvmstat" "\${args[@]}"
END
# KernelShark warns root with a window; what it draws here nobody sees.
mkdir -m 700 "$tmp/home"
chmod 755 "$tmp"
chown nobody "$tmp/home"
cat >"$tmp/bin/kernelshark" <<-END
	#!/bin/bash
	HOME=$tmp/home XDG_RUNTIME_DIR=$tmp/home QT_QPA_PLATFORM=offscreen exec \\
	    setpriv --reuid nobody --regid nogroup --clear-groups $(command -v kernelshark) "\$@"
END
chmod +x "$tmp"/bin/*
PATH=$tmp/bin:$PATH
cd "$tmp" || exit 1
ln -s "$here" tests
# For the examples that take what trace-cmd recorded: see there for how that is made.
trace-cmd convert --file-version 7 -i "$here/captures/vmx-6.1-mix2.dat" -o trace.dat >/dev/null 2>&1

start_guest busy -n 0 -l ohp -s 1000 -N -name guest=web1,debug-threads=on
busy=$pid
start_guest stuck -P -v 2 -N -name 'guest=a\"b'
stuck=$pid name='a\\"b' # as it is shown

# run COMMAND: its output, of two seconds if it goes on for ever, and status; nohup's output is in
# its file
run() {
	local status
	rm -f kvmstat.log
	timeout -s INT -k 1 2 bash -c "$1"$'\nstatus=$?; wait; exit $status' 2>&1
	status=$?
	[ ! -e kvmstat.log ] || cat kvmstat.log
	return "$status"
}

# printed_in_readme COMMAND: what the README says that it prints
printed_in_readme() {
	command=$1 awk '$0 == "    $ " ENVIRON["command"] { taking = 1; next } /^$/ { taking = 0 }
		taking { sub(/^    /, ""); print }' "$top/README.md"
}

header='pid vcpu \| exits : haltx  irqx irqwx   iox mmiox \|  irqs +emul  eptv'
{
	examples <"$top/README.md"
	mandoc -Tascii "$top/kvmstat.1" | col -bx | examples
} | awk '!seen[$0]++' >"$tmp/commands"
count=0
# Those of now and of a minute ago.
dates="($(date +%F)|$(date -d '1 minute ago' +%F))"
seconds=$(date +%s)
seconds="($((seconds / 1000))|$((seconds / 1000 + 1)))"
while read -r command; do
	count=$((count + 1))
	case $command in
	'trace-cmd record'*) continue ;; # it takes the whole host: amd.t runs it on one of its own
	'kvmstat -m'* | pm* | *kvmstat.config) continue ;; # fleet.t
	'kvmstat -r trace.dat'*) cp "$here/captures/vmx-6.1-mix2.dat" trace.dat ;;
	*'$12 + $13'*) start_guest spinning -T -n 0 -l x -N -name loop
		spinning=$pid ;;
	esac
	out=$(run "$command")
	status=$?
	case $command in
	*tests/captures*) want='^ +[0-9]+    0 \|' ;;
	'kvmstat -n 1') want="^ *$busy    0 \|.* web1$" ;;
	*'$12 + $13'*) want="^$spinning 0 loop$" ;;
	*'$10 == 0 { print $1, $2'*) want="^$stuck 1 a" ;;
	*'$10 == 0 { print $1'*) want="^$stuck a" ;;
	'kvmstat -cn 1') want="^ *$stuck    1 \|( +0 [:|]?)+.* 0\.0   0\.0 " ;;
	*'-k exits'*) want="^ *$busy    0 \|" ;;
	*'-k wait%'*) want="^ *$busy    0 \|.* web1$" ;;
	*-nsz*) want="^ *$busy    1 \| .* web1$" ;;
	*kvm.prom | *kvm.tsv) want="^$" ;;
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
	'trace-cmd convert'*) want='^CPU0 data recorded' ;;
	'kvmstat -r trace.dat'*) want='^   700    0 \|    721 :' ;;
	*'print t, n'*) want='^[0-9]{10}(\.[0-9])? [1-9][0-9]*$' ;;
	*) want='this example has a test of its own' ;;
	esac
	like "$out" "$want" "$command"
	case $command in
	*'$12 + $13'*) is "$out" "$spinning 0 loop" "and nothing else"
		end "$spinning" ;;
	*'$10 == 0 { print $1, $2'*) is "$out" "$stuck 0 $name
$stuck 1 $name" "and nothing else"
		[[ $command != *bad* ]] || is "$status" 1 "and the status tells" ;;
	*'$10 == 0 { print $1'*) is "$out" "$stuck $name" "and nothing else" ;;
	*-nsz*) ! grep -q "^ *$stuck" <<<"$out"
		ok $? "and no other" ;;
	*kvm.prom) like "$(cat kvm.prom)" "^kvm_exits_per_second\{pid=\"$busy\",guest=\"web1\"\} [1-9][0-9.]*$" \
		"and the file has the guest"
		is "$(grep "$stuck" kvm.prom)" 'kvm_exits_per_second{pid="'"$stuck"'",guest="a\\\\\"b"} 0' \
			"and quotes what has to be" ;;
	*kvm.tsv) like "$(cat kvm.tsv)" "^[0-9.]+	$busy	0	[1-9].*	web1$" "and the file has the report" ;;
	'trace-cmd convert'*) is "$("$kvmstat" -H -r new.dat)" \
		"$("$kvmstat" -H -r tests/captures/vmx-6.1-mix2.dat)" "and what it made is read" ;;
	*tests/captures*) is "$out" "$(printed_in_readme "$command")" "and what it prints is in the README" ;;
	*'-p web1'*) ! grep -q "^ *$stuck" <<<"$out"
		ok $? "and no other" ;;
	'kvmstat -n 1') like "$out" "$header name$" "with the header" ;;
	esac
done <"$tmp/commands"
is "$count" 33 "all of the examples were found"

# The three texts on options and columns say the same.
for option in b c e h H k l m n p r s T V w z; do
	mandoc -Tascii "$top/kvmstat.1" | col -bx | grep -Eq "^     -$option(,| |\$)" &&
		"$kvmstat" -h | grep -Eq "^  -$option |; -$option: "
	ok $? "-$option is in the manual and in the usage"
done
synopsis=$(mandoc -Tascii "$top/kvmstat.1" | col -bx | sed -n '/^SYNOPSIS/,/^DESCRIPTION/p' |
	sed '1d; $d' | xargs | sed 's/-r file | -w/-r file @ -w/; s/ | /|/g; s/@/|/')
is "usage: $synopsis" "$("$kvmstat" -h | sed '/^$/,$d' | xargs)" "synopsis and usage are the same"
"$kvmstat" -h | sed -n '/^  pid/,/^  wait%/ { s/^  //; s/  */ /; p }' >"$tmp/help"
# columns FROM TO FIRST: the manual's columns between these headings, as `name meaning', those from
# field FIRST on; a line that does not have the number that is due stays as it is
columns() {
	mandoc -Tascii -O width=200 "$top/kvmstat.1" | col -bx | sed -n "/^$1/,/^$2/p" |
		sed -n 's/^ *\([a-z][a-z% ]*\) (\([0-9]*\))  *\([^.]*\)[.].*/\2 \1 \3/p' |
		awk -v first="$3" '$1 < first { next } $1 == first + n { n++; sub(/^[0-9]* /, "") } { print }'
}
is "$(columns OUTPUT KEYS 1)" "$(cat "$tmp/help")" "manual and -h give the columns the same meaning"
"$kvmstat" -h | sed -n '/^  count /,$ { s/^  //; s/  */ /g; p }' >"$tmp/help"
is "$(columns KEYS RECORDINGS 4)" "$(cat "$tmp/help")" "and those of -e"

# A message that ends kvmstat says what to do, in parentheses, or is in DIAGNOSTICS, as each of those
# is after which it goes on: the words of the source, up to a remedy, between what varies.
mandoc -Tascii -O width=1000 "$top/kvmstat.1" | col -bx | sed -n '/^DIAGNOSTICS/,/^SEE ALSO/p' |
	xargs -d '\n' | tr -s ' ' >"$tmp/diagnostics"
perl -0 -ne 'while (/\b(fail|complain)\(\s*([^;]*(?:"[^"]*"[^;]*)*?)\);/g) {
	my ($by, $call) = ($1, $2);
	$call = $call =~ s/\\"//gr =~ s/"\s*PRIu64\s*"/u/gr =~ s/"\s*"//gr;
	my @texts = $call =~ /"([^"]*)"/g;
	if ($by eq "fail" and "@texts" =~ /\((?!see DIAGNOSTICS)/) {
		print STDERR "@texts\n";
		next;
	}
	for my $text (@texts) {
		my $said = $text =~ s/ \(.*//sr;
		print map { s/^[ :*,-]+|[ :]+$//gr . "\n" } split /%[-.*0-9]*[a-z]+|; /, $said;
	}
}' "$top/kvmstat.c" 2>"$tmp/remedies" | grep '....' | sort -u >"$tmp/messages"
echo "(see DIAGNOSTICS in kvmstat(1))" >>"$tmp/messages"
is "$(while read -r words; do grep -qF -- "$words" "$tmp/diagnostics" || echo "$words"; done <"$tmp/messages")" "" \
	"the manual has each message that does not end kvmstat, or has no remedy: $(wc -l <"$tmp/messages")"
[ "$(wc -l <"$tmp/messages")" -gt 15 ] && [ "$(wc -l <"$tmp/remedies")" -gt 30 ]
ok $? "which are some, beside those that say what to do: $(wc -l <"$tmp/remedies")"

# README's way to install it, but into another place.
cp -r "$top/Makefile" "$top/kvmstat.c" "$top/kvmstat.1" "$tmp/bin"
sed -n '/^## Install/,/^## How/p' "$top/README.md" | sed -n 's/^    \(make.*\)/\1/p' >"$tmp/install"
(cd "$tmp/bin" && DESTDIR=$tmp/root bash -e "$tmp/install") >/dev/null 2>&1
is "$(cat "$tmp/install")
$("$tmp/root/usr/local/bin/kvmstat" -V; ls "$tmp/root/usr/local/share/man/man1")" "make
make install
make clean && make CC=musl-gcc LDFLAGS=-static
$("$kvmstat" -V)
kvmstat.1" "README's commands install the program and its manual"
like "$(tail -n 1 "$tmp/install")" " make $(sed -n 's/^\.Ql make \(.*\) ,$/\1/p' "$top/kvmstat.1")$" \
	"the manual links it statically just so"
# A container's image may have nothing: no libc, and nothing mounted.
mkdir "$tmp/image"
cp "$tmp/bin/kvmstat" "$tmp/image"
chroot "$tmp/image" /kvmstat -n 0.3 1 >"$tmp/static.out" 2>"$tmp/static.err"
like "$(cat "$tmp/static.out" "$tmp/static.err")" "^ *$busy    0 \|.* web1$" "and what that makes runs anywhere"

is "$(sed -n 's/^| \([a-z-]*\.t\) .*/\1/p' "$here/README.md" | sort)" "$(cd "$here" && printf '%s\n' *.t | sort)" \
	"tests/README.md says of each test what it proves"

done_testing
