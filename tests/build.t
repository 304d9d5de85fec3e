#!/usr/bin/env bash
# It builds everywhere, installs where it is told to, and is in order.
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
	is "$("$tmp/kvmstat" -V)" "kvmstat 1.2" "$compiler: it runs"
done
is "$(file -b "$tmp/kvmstat" 2>/dev/null | grep -c 'dynamically linked')" 0 "musl: static"

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

if what=$(missing clang-format clang-tidy cppcheck gcc mandoc shellcheck) && [ "${CI:-}" != true ]; then
	ok 0 "lint # SKIP needs $what"
else
	make -s lint >"$tmp/out" 2>&1
	is "$?$(cat "$tmp/out")" 0 "make lint"
fi

done_testing
