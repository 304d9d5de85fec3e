# kvmstat: POSIX make
.POSIX:

CC = cc
PREFIX = /usr/local
BINDIR = $(PREFIX)/bin
MANDIR = $(PREFIX)/share/man
CFLAGS = -O2
STRICT = -std=c11 -Wall -Wextra -Wpedantic -Wshadow -Wconversion

all: kvmstat

kvmstat: kvmstat.c
	$(CC) $(STRICT) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ kvmstat.c

tests/guest tests/monitor tests/attack: tests/helpers/guest.c tests/helpers/monitor.c tests/helpers/attack.c \
		tests/helpers/machine.h tests/helpers/kvm.h
	$(CC) $(STRICT) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -pthread -o $@ tests/helpers/$(@F).c

# One file to the compiler, with kvmstat.c and what is beside it; always built
tests/unit/unit:
	$(CC) $(STRICT) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ tests/unit/unit.c

# What the tests run; see tests/check
check: all tests/guest tests/monitor tests/attack
	tests/check

# The part that needs neither root nor KVM, and only a compiler and perl: for after each change
quick: all tests/unit/unit
	tests/quick

# An AMD host, emulated; part of check
check-amd: all tests/guest
	KVMSTAT=$$PWD/kvmstat prove -v tests/amd.t

# That, also under Debian's oldest and newest kernel, an arm64 and a riscv64 host, emulated
check-hosts: all tests/guest
	KVMSTAT=$$PWD/kvmstat prove -v tests/amd*.t tests/arm.t tests/riscv.t
	AMD_SUITE=experimental KVMSTAT=$$PWD/kvmstat prove -v tests/amd.t

# An hour of what check does for a minute
load: all tests/guest
	LOAD_SECONDS=3600 KVMSTAT=./kvmstat prove -v tests/load.t

# tests/bench/table builds tests/bench/reader.c itself
bench: all tests/guest
	tests/bench/table
	tests/bench/metrics
	tests/bench/read
	tests/bench/scale

# Beside perf kvm stat live, on the AMD host
bench-amd: all tests/guest
	tests/bench/amd

# Looks for inputs that end it, for FUZZ_SECONDS (60) each; check does so for some seconds
fuzz:
	tests/fuzz/run

demo: all
	tests/demo

# malloc-leak: gcc 12 loses sight of memory that is kept in what another object points to;
# ctunullpointer: rows of the usual table, as in unit.c, need no key and no sum of all keys;
# mandoc: a manual that kvmstat.1 refers to need not be installed where this runs
lint:
	clang-format --dry-run --Werror kvmstat.c tests/bench/*.c tests/fuzz/*.c tests/helpers/*.[ch] tests/unit/*.c
	clang-tidy --quiet kvmstat.c -- -std=c11 2>/dev/null
	cppcheck --quiet --std=c11 --enable=warning,performance,portability --error-exitcode=1 \
		'-D_Noreturn=__attribute__((noreturn))' kvmstat.c tests/bench/reader.c tests/helpers/*.c
	cppcheck --quiet --std=c11 --enable=warning,performance,portability --error-exitcode=1 \
		'-D_Noreturn=__attribute__((noreturn))' --suppress=ctunullpointer tests/unit/unit.c
	gcc $(STRICT) -O2 -fanalyzer -Wno-analyzer-malloc-leak -Werror -S -o /dev/null kvmstat.c
	! mandoc -Tlint -Wstyle kvmstat.1 2>&1 | grep -v 'mandoc.db\|referenced manual not found'
	grep -lE '^#!/.*[ /](ba)?sh$$' .ci/* tests/* tests/*/* 2>/dev/null | grep -v '[.]t$$' | xargs shellcheck

install: all
	mkdir -p $(DESTDIR)$(BINDIR) $(DESTDIR)$(MANDIR)/man1
	cp kvmstat $(DESTDIR)$(BINDIR)/kvmstat
	chmod 755 $(DESTDIR)$(BINDIR)/kvmstat
	cp kvmstat.1 $(DESTDIR)$(MANDIR)/man1/kvmstat.1
	chmod 644 $(DESTDIR)$(MANDIR)/man1/kvmstat.1

uninstall:
	rm -f $(DESTDIR)$(BINDIR)/kvmstat $(DESTDIR)$(MANDIR)/man1/kvmstat.1

clean:
	rm -rf kvmstat tests/attack tests/guest tests/monitor tests/unit/unit tests/build

.PHONY: tests/unit/unit all check quick check-amd check-hosts load bench bench-amd fuzz demo lint install uninstall clean
