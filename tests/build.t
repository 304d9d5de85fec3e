#!/usr/bin/env bash
# It builds everywhere, and installs where it is told to.
. "$(dirname "$0")/lib.sh"
cd "$top" || exit 1

strict="-std=c11 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror"
for compiler in gcc clang "musl-gcc -static"; do
	if what=$(missing "${compiler%% *}"); then
		[ "${CI:-}" != true ]
		ok $? "$compiler # SKIP needs $what"
		continue
	fi
	# shellcheck disable=SC2086 # lists of words
	$compiler $strict -O2 -o "$tmp/kvmstat" kvmstat.c 2>"$tmp/err"
	is "$?$(cat "$tmp/err")" 0 "$compiler: no warning"
	is "$("$tmp/kvmstat" -V)" "$("$kvmstat" -V)" "$compiler: it runs"
done
is "$(file -b "$tmp/kvmstat" 2>/dev/null | grep -c 'dynamically linked')" 0 "musl: static"

# As for a big-endian host: it refuses that before it looks at anything, but not recordings.
gcc -U__BYTE_ORDER__ -D__BYTE_ORDER__=__ORDER_BIG_ENDIAN__ -o "$tmp/kvmstat" kvmstat.c 2>/dev/null
is "$("$tmp/kvmstat" -w "$tmp/no/where" 2>&1)$?" \
	"kvmstat: this host is big-endian (kvmstat counts on little-endian hosts only)1" "a big-endian host"
is "$("$tmp/kvmstat" -H -r "$here/captures/vmx-6.1-mix2.dat" | cut -f1-3)" $'700\t0\t721\n700\t1\t723' \
	"and a recording there"

# On 32 bits, of a recording whose sub-buffers are behind 3 GiB of hole.
moved='my $table = index($_, "flyrecord") + 10; my $hole = 3 << 30;
	for my $cpu (0 .. unpack("L", substr($_, index($_, "options  ") - 4, 4)) - 1) {
		my ($at, $size) = unpack("QQ", substr($_, $table + 16 * $cpu, 16));
		substr($_, $table + 16 * $cpu, 8) = pack("Q", $at + $hole);
		seek(STDOUT, $at + $hole, 0); print substr($_, $at, $size);
	}
	seek(STDOUT, 0, 0)'
capture=$here/captures/vmx-6.1-mix2.dat
perl -0777 -pe "$moved" "$capture" >"$tmp/large.dat"
if echo 'int main(void) { return 0; }' | gcc -m32 -x c -o "$tmp/small" - 2>/dev/null; then
	for static in "" -static; do
		# shellcheck disable=SC2086 # lists of words
		gcc -m32 $static $strict -O2 -o "$tmp/kvmstat" kvmstat.c 2>"$tmp/err"
		is "$?$(cat "$tmp/err")" 0 "gcc -m32 $static: no warning"
		"$tmp/small" 2>/dev/null || {
			skip_check "needs a kernel that runs 32-bit programs" "gcc -m32 $static: -r of more than 2 GiB"
			continue
		}
		is "$("$tmp/kvmstat" -H -r "$tmp/large.dat" 2>&1)" "$("$kvmstat" -H -r "$capture")" \
			"gcc -m32 $static: -r of more than 2 GiB"
	done
	# shellcheck disable=SC2086 # lists of words
	gcc -m32 $strict -O2 -o "$tmp/unit" tests/unit/unit.c 2>"$tmp/err"
	is "$?$(cat "$tmp/err")" 0 "gcc -m32: no warning in unit.c"
	if "$tmp/small" 2>/dev/null; then
		is "$(cd tests && "$tmp/unit" | grep -v '^ok\|^#\|^1\.\.')" "" "gcc -m32: what only computes"
	else
		skip_check "needs a kernel that runs 32-bit programs" "gcc -m32: what only computes"
	fi
else
	[ "${CI:-}" != true ]
	ok $? "gcc -m32 is not here # SKIP"
fi

cp Makefile kvmstat.c kvmstat.1 "$tmp"
cd "$tmp" || exit 1
rm -f kvmstat
make -s install DESTDIR="$tmp/d" PREFIX=/usr CFLAGS=-O1 CPPFLAGS=-DNDEBUG >"$tmp/out" 2>&1
is "$?$(cat "$tmp/out")" 0 "make install"
is "$(cd d && find . -type f | sort | xargs)" "./usr/bin/kvmstat ./usr/share/man/man1/kvmstat.1" \
	"DESTDIR and PREFIX"
make -s uninstall DESTDIR="$tmp/d" PREFIX=/usr
is "$(find d -type f)" "" "make uninstall"
make -s install DESTDIR="$tmp/e" BINDIR=/b MANDIR=/m
is "$(cd e && find . -type f | sort | xargs)" "./b/kvmstat ./m/man1/kvmstat.1" "BINDIR and MANDIR"
make -s clean
is "$(ls kvmstat 2>/dev/null)" "" "make clean"
cd "$top" || exit 1

done_testing
