# Helpers for the tests, in bash.  A test calls ok (or is, like) for each of its
# promises and done_testing at its end; prove(1) reads what they print.

set -u
# What whoever started the test left open is none of its: some tests count descriptors.  Bash
# reads the test itself from 255.
for descriptor in "/proc/$$/fd/"*; do
	descriptor=${descriptor##*/}
	[ "$descriptor" -le 2 ] || [ "$descriptor" -eq 255 ] || { exec {descriptor}>&-; } 2>/dev/null
done
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(dirname "$here")
kvmstat=${KVMSTAT:-$top/kvmstat}
guest=${GUEST:-$here/guest}
monitor=${MONITOR:-$here/monitor}
attack=${ATTACK:-$here/attack}
tmp=$(mktemp -d) || exit 1
tests=0 failed=0
children=()

# ok STATUS NAME: passes if STATUS is 0
ok() {
	tests=$((tests + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $tests - $2"
	else
		failed=$((failed + 1))
		echo "not ok $tests - $2"
		why "not ok $tests - $2"
	fi
}

# note TEXT: its first lines, as a comment in the output, which prove -v shows
note() {
	head -n 20 <<<"$1" | cut -c 1-200 | sed 's/^/# /'
}

# why TEXT: of a check that failed, on stderr, where prove shows it in any case
why() {
	note "$1" | sed "s/^#/# ${0##*/}:/" >&2
}

# is GOT WANTED NAME
is() {
	[ "$1" = "$2" ]
	ok $? "$3"
	[ "$1" = "$2" ] || { why "got: $1" && why "wanted: $2"; }
}

# totals FIRST COUNTS: of the rows on stdin, by their fields from FIRST up to COUNTS, the sums of
# COUNTS and of the whole numbers behind, a line each; but for those that are 0
totals() {
	awk -F'\t' -v first="$1" -v counts="$2" '
		{
			k = ""
			for (i = first; i < counts; i++) k = k $i " "
			for (; i <= NF && $i ~ /^[0-9]+$/; i++) sum[k "field " i] += $i
		}
		END { for (k in sum) if (sum[k]) print k ": " sum[k] }' | sort
}

# same_rows FIRST COUNTS GOT WANTED NAME: of a recording and of the live report; the numbers are
# those of totals().  Live, an event that a CPU was still writing when an interval ended counts
# in the next one: rows of two reports of a vCPU may differ by it, which is said, but no sum.
same_rows() {
	local differences
	differences=$(diff <(echo "$3") <(echo "$4"))
	[ "$(grep -c '^[<>]' <<<"$differences")" -le 8 ]
	ok $? "$5"
	[ -z "$differences" ] || note "$differences"
	is "$(totals "$1" "$2" <<<"$3")" "$(totals "$1" "$2" <<<"$4")" "and the same sums"
}

# like TEXT REGEX NAME
like() {
	grep -Eq -- "$2" <<<"$1"
	ok $? "$3"
	grep -Eq -- "$2" <<<"$1" || { why "no match for: $2" && why "in: $1"; }
}

# but_late FILE...: of what kvmstat said, leaves out the lines that it had too little time at most for
# a look at all processes, or for a name: on a slow machine, that is right, and so are the counts
but_late() {
	sed -i '/^kvmstat: processes: no time to look at all/d; /^kvmstat: .*: no answer in time/d' "$@"
}

done_testing() {
	echo "1..$tests"
	exit $((failed != 0))
}

# until_true SECONDS COMMAND...: tries COMMAND until it succeeds; a machine may be ten times slower
# than one on which that should take no more than SECONDS
until_true() {
	local tries=$(($1 * 500))
	shift
	until "$@"; do
		[ $((tries -= 1)) -gt 0 ] || return 1
		sleep 0.02
	done
}

# start NAME COMMAND...: runs COMMAND in the background, its output to $tmp/NAME.out
# and .err, its stdin held open by a pipe and no signal but SIGINT ignored; sets pid.
start() {
	local name=$1
	shift
	mkfifo "$tmp/$name.in"
	env --default-signal=HUP,QUIT "$@" <"$tmp/$name.in" >"$tmp/$name.out" 2>"$tmp/$name.err" &
	pid=$!
	children+=("$pid")
	exec {hold}>"$tmp/$name.in"
}

# start_guest NAME OPTIONS...: starts a test guest, and waits until it is made
start_guest() {
	start "$1" "$guest" "${@:2}"
	until_true 10 grep -qs '^guest' "$tmp/$1.err"
}

# start_monitor NAME OPTIONS...: the same with the monitor of odd habits
start_monitor() {
	start "$1" "$monitor" "${@:2}"
	until_true 10 grep -qs '^monitor' "$tmp/$1.err"
}

# start_kvmstat NAME OPTIONS...: starts kvmstat, and waits until it traces
start_kvmstat() {
	start "$1" "$kvmstat" "${@:2}"
	until_true 10 tracing "$pid"
}

# tracing PID: that kvmstat traces.  A new instance is on at first, and off before
# the first event is enabled: so the events are asked for before that.
tracing() {
	grep -qs 1 "$instances/kvmstat.$1"/events/kvm/*/enable &&
		[ "$(cat "$instances/kvmstat.$1/tracing_on" 2>/dev/null)" = 1 ]
}

# end PID [SIGNAL]: ends a child; sets status
end() {
	kill "-${2:-TERM}" "$1" 2>/dev/null
	wait "$1" 2>/dev/null
	status=$?
}

# sums FILE: of the rows of kvmstat -H, each (pid, vcpu) and its columns' sums
sums() {
	awk -F'\t' -v OFS='\t' '{
		k = $1 FS $2; seen[k] = 1
		for (i = 3; i <= 11; i++) sum[k, i] += $i
	} END {
		for (k in seen) {
			line = k
			for (i = 3; i <= 11; i++) line = line OFS sum[k, i]
			print line
		}
	}' "$1" | sort -n -k1,1 -k2,2
}

# examples: the commands after "$ " on stdin, a line each
examples() {
	awk '/^ *\$ / { sub(/^ *\$ /, ""); taking = 1 }
		taking {
			sub(/^ +/, "")
			line = line (line == "" ? "" : " ") $0
			if (!/(\||; do)$/) {
				print line
				line = ""
				taking = 0
			}
		}'
}

# has_sums FILE WANTED: whether these rows of sums are among those of FILE
has_sums() {
	[ -z "$(comm -13 <(sums "$1" | sort) <(sort <<<"$2"))" ]
}

# all_reported NAME WANTED: waits until kvmstat, which may be late, reported what makes these sums
all_reported() {
	until_true 5 has_sums "$tmp/$1.out" "$2"
}

# has_rows NAME PID N: whether kvmstat has printed as many rows of a guest's vCPU 0
has_rows() {
	[ "$(grep -c "^$2	0	" "$tmp/$1.out")" -ge "$3" ]
}

# next_reports NAME PID: waits for two further reports, so that what has been up to now is in them
next_reports() {
	until_true 5 has_rows "$1" "$2" $(($(grep -c "^$2	0	" "$tmp/$1.out") + 2))
}

clean_up() {
	local child
	for child in "${children[@]}"; do
		kill -KILL -- "$child" "-$child" 2>/dev/null # one may have a process group of its own
	done
	wait 2>/dev/null
	grep -o " $tmp/[^ ]*" /proc/self/mounts | sort -r | xargs -r umount 2>/dev/null
	rm -rf "$tmp"
}
trap clean_up EXIT

# left_out WHY: notes for tests/check, which names it at its end, what this test did without
left_out() {
	[ -z "${LEFT_OUT:-}" ] || echo "$1	$(basename "$0")" >>"$LEFT_OUT"
}

# skip_here WHY: leaves the whole test out for want of what this machine lacks, and no package has
skip_here() {
	left_out "$1"
	echo "1..0 # SKIP $1"
	exit 0
}

# skip_all WHY: leaves the whole test out for want of what can be installed, which CI does not accept
skip_all() {
	[ "${CI:-}" = true ] || skip_here "$1"
	echo "1..1"
	tests=0
	ok 1 "$1"
	exit 1
}

# skip_check WHY NAME: leaves a check out for want of what this machine lacks
skip_check() {
	left_out "$1"
	tests=$((tests + 1))
	echo "ok $tests - $2 # SKIP $1"
}

# has_device FILE: that this device is here, and can be opened for reading and writing
has_device() {
	[ -c "$1" ] && { : <>"$1"; } 2>/dev/null
}

# can_split_users: that a user name space can be made, as it cannot after chroot(2), nor in many
# containers
can_split_users() {
	unshare --user --map-root-user true 2>/dev/null
}

# Debian's packages of the programs that have other names.
declare -A package=([aarch64-linux-gnu-ld]=binutils-aarch64-linux-gnu [busybox]=busybox-static
	[col]=bsdextrautils [mke2fs]=e2fsprogs [musl-gcc]=musl-tools [pgrep]=procps [pmrep]=pcp
	[qemu-system-aarch64]=qemu-system-arm [qemu-system-riscv64]=qemu-system-misc
	[qemu-system-x86_64]=qemu-system-x86 [riscv64-linux-gnu-ld]=binutils-riscv64-linux-gnu
	[systemd-analyze]=systemd [xz]=xz-utils)

# missing PROGRAM...: says which of them is not here, and which package has it
missing() {
	local program
	for program; do
		if ! command -v "$program" >/dev/null; then
			echo "$program (package ${package[$program]:-$program})"
			return
		fi
	done
	return 1
}

# needs PROGRAM...: leaves the whole test out where one of them is missing
needs() {
	local what
	! what=$(missing "$@") || skip_all "needs $what"
}

# has PROGRAM...: that the part of the test which needs these can run; else says so, which CI does not accept
has() {
	local what
	what=$(missing "$@") || return 0
	if [ "${CI:-}" = true ]; then ok 1 "needs $what"; else skip_check "needs $what" "a part of the test"; fi
	return 1
}

# Tests of a live host need root and KVM.  They look at tracefs through a mount of
# their own, which is in a mount name space of their own and not where kvmstat
# would find it: for kvmstat, tracefs and debugfs are not mounted, whatever the host has.
live_host() {
	[ "$(id -u)" -eq 0 ] || skip_here "needs root"
	has_device /dev/kvm || skip_here "needs /dev/kvm"
	unshare --mount true 2>/dev/null || skip_here "needs the right to mount"
	if [ "${OWN_MOUNTS:-}" != "$0" ]; then
		rm -rf "$tmp"
		OWN_MOUNTS=$0 exec unshare --mount bash "$0"
	fi
	umount -R /sys/kernel/debug /sys/kernel/tracing 2>/dev/null
	mkdir "$tmp/tracefs"
	mount -t tracefs nodev "$tmp/tracefs" || skip_here "needs tracefs"
}
instances=$tmp/tracefs/instances

# For tests that look at all rows: no guest of others is to run.
alone() {
	local other name
	other=$(find /proc/[0-9]*/fd -lname anon_inode:kvm-vm 2>/dev/null | cut -d / -f 3 | head -n 1)
	[ -n "$other" ] || return 0
	name=$("$kvmstat" -Hn -p "$other" 0.1 1 2>/dev/null | cut -f 12 | uniq)
	skip_all "a virtual machine is running that is not the tests': ${name:-?}, process $other ($(cat "/proc/$other/comm"))"
}

# own_name: gives the kvmstat under test a process name that no other has
own_name() {
	needs pgrep
	name=kvms$$
	cp "$kvmstat" "$tmp/$name"
	kvmstat=$tmp/$name
}

# ours: the instances, but for those of other programs and of other kvmstats
ours() {
	local i
	for i in "$instances"/kvmstat.*; do
		[ "$(cat "/proc/${i##*.}/comm" 2>/dev/null)" = kvmstat ] || [ ! -d "$i" ] || basename "$i"
	done
}

# nothing_left: after own_name, that no process and no instance of it is there
nothing_left() {
	[ -z "$(ours)" ] && ! pgrep -x "$name" >/dev/null
}

# Whether the host has only the software backend, which never fires kvm_exit.
software_backend() {
	[ -d /sys/module/kvm_pvm ] && ! [ -d /sys/module/kvm_intel ] && ! [ -d /sys/module/kvm_amd ]
}

# expected LETTERS LOOPS <FILE: what kvmstat's sums should be after guest -l LETTERS -n
# LOOPS printed FILE.  The software backend's own figures for exits count entries
# after a host's interrupt too, and leave out port I/O: there the program tells.
expected() {
	local io=${1//[^oiq]/} all=${1//[^oiqmrwh]/} software=0
	software_backend && software=1
	awk -F'\t' -v OFS='\t' -v io=$((${#io} * $2 + 1)) -v all=$((${#all} * $2 + 1)) \
		-v software=$software 'software { $3 = all; $7 = io; $11 = 0 } { print }' |
		sort -n -k1,1 -k2,2
}
