#!/usr/bin/env bash
# README.md and kvmstat.1 agree with the program and with one another; their examples of recordings do
# what is said of them, and examples.t has those of a live host.
. "$(dirname "$0")/lib.sh"
needs col file mandoc musl-gcc perl trace-cmd
. "$here/helpers/examples.sh"

# For the examples that take what trace-cmd recorded: see there for how that is made.
trace-cmd convert --file-version 7 -i "$here/captures/vmx-6.1-mix2.dat" -o trace.dat >/dev/null 2>&1

# printed_in_readme COMMAND: what the README says that it prints
printed_in_readme() {
	command=$1 awk '$0 == "    $ " ENVIRON["command"] { taking = 1; next } /^$/ { taking = 0 }
		taking { sub(/^    /, ""); print }' "$top/README.md"
}

is "$(wc -l <commands)" 38 "all of the examples were found"
while read -r command; do
	offline "$command" || continue
	case $command in
	*tests/captures*) want='^ +[0-9]+    0 \|' ;;
	'trace-cmd convert'*) want='^CPU0 data recorded' ;;
	*) cp "$here/captures/vmx-6.1-mix2.dat" trace.dat
		want='^   700    0 \|    721 :' ;;
	esac
	out=$(run "$command")
	like "$out" "$want" "$command"
	case $command in
	'trace-cmd convert'*) is "$("$kvmstat" -H -r new.dat)" \
		"$("$kvmstat" -H -r tests/captures/vmx-6.1-mix2.dat)" "and what it made is read" ;;
	*tests/captures*) is "$out" "$(printed_in_readme "$command")" "and what it prints is in the README" ;;
	esac
done <commands

# The three texts on options and columns say the same.
for option in b c e h H j k l m n p r s T V w z; do
	mandoc -Tascii "$top/kvmstat.1" | col -bx | grep -Eq "^     -$option(,| |\$)" &&
		"$kvmstat" -h | grep -Eq "^  -$option |; -$option: "
	ok $? "-$option is in the manual and in the usage"
done
synopsis=$(mandoc -Tascii "$top/kvmstat.1" | col -bx | sed -n '/^SYNOPSIS/,/^DESCRIPTION/p' |
	sed '1d; $d' | xargs | sed 's/-r file | -w/-r file @ -w/; s/ | /|/g; s/@/|/')
is "usage: $synopsis" "$("$kvmstat" -h | sed '/^$/,$d' | xargs)" "synopsis and usage are the same"
"$kvmstat" -h | sed -n '/^  pid/,/^  state/ { s/^  //; s/  */ /; p }' >"$tmp/help"
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
is "$(file -b "$tmp/bin/kvmstat" | grep -c 'statically linked')" 1 "and what that makes needs no libc"

is "$(sed -n 's/^| \([a-z-]*\.t\) .*/\1/p' "$here/README.md" | sort)" "$(cd "$here" && printf '%s\n' *.t | sort)" \
	"tests/README.md says of each test what it proves"

done_testing
