#!/usr/bin/env bash
# Where what kvmstat sees is not the whole host: each report is right, or it says in one line
# why there is none.
. "$(dirname "$0")/lib.sh"
live_host
alone
# The sanitizers' own part of the program needs a /proc: without, it has errors of its own.
sanitized=no
case $kvmstat in */sanitized/*) sanitized=yes ;; esac
own_name
chmod 755 "$tmp"

start_guest busy -v 2 -n 0 -l oh -s 1000 -N -name guest=busy
busy=$pid
# One of another user, with /dev/kvm open to all in the test's own mount name space.
mknod -m 666 "$tmp/kvm" c "0x$(stat -c %t /dev/kvm)" "0x$(stat -c %T /dev/kvm)"
mount --bind "$tmp/kvm" /dev/kvm
cp "$guest" "$tmp/guest"
start idle setpriv --reuid nobody --regid nogroup --clear-groups --inh-caps=-all "$tmp/guest" \
	-P -N -name guest=idle
idle=$pid
until_true 10 grep -q '^guest' "$tmp/idle.err"
right=$(printf '%s %s %s %s\n' "$busy" 0 1 busy "$busy" 1 1 busy "$idle" 0 0 idle | sort -n)

# in_view COMMAND...: runs kvmstat for a report, by COMMAND; sets status, out and err
in_view() {
	"$@" timeout 20 "$kvmstat" -Hn 0.4 1 >"$tmp/out" 2>"$tmp/err"
	status=$?
	out=$(awk -F'\t' '{ print $1, $2, ($3 > 0), $12 }' "$tmp/out")
	err=$(cat "$tmp/err")
}

# is_right, is_refused REGEX: what in_view gave
is_right() {
	[ "$status" -eq 0 ] && [ "$out" = "$right" ] && [ -z "$err" ]
}
is_refused() {
	[ "$status" -eq 1 ] && [ -z "$out" ] && [ "$(wc -l <"$tmp/err")" -eq 1 ] && grep -Eq "^kvmstat: .*($1)" "$tmp/err"
}
said() {
	why "status $status"
	why "$out"
	why "$err"
}

# right_in WHAT COMMAND...; refused_in REGEX WHAT COMMAND...; true_in REGEX WHAT COMMAND...:
# that kvmstat is right; refuses, in a line that matches; either of them
right_in() {
	in_view "${@:2}"
	is_right
	ok $? "$1: the right rows"
	is_right || said
}
refused_in() {
	in_view "${@:3}"
	is_refused "$1"
	ok $? "$2: one line that says so"
	is_refused "$1" || said
	until_true 2 nothing_left
	ok $? "and nothing is left"
}
true_in() {
	in_view "${@:3}"
	is_right || is_refused "$1"
	ok $? "$2: the right rows, or one line that says why not"
	is_right || is_refused "$1" || said
}

# with_mounts COMMANDS COMMAND...: COMMAND after COMMANDS, in a mount name space of its own
with_mounts() {
	# shellcheck disable=SC2016 # the inner shell's
	unshare --mount bash -c "$1"' && exec "$@"' bash "${@:2}"
}

right_in "the host itself" env

# Name spaces.  The first refusal names all that is needed there.
everything="--pid=host.*--userns=host.*CAP_SYS_ADMIN.*CAP_SYS_PTRACE.*CAP_DAC_READ_SEARCH.*-r"
refused_in "PID name space: .*$everything" "another PID name space, with the host's /proc" unshare --pid --fork
refused_in "PID name space: .*$everything" "another PID name space, with its own /proc" \
	unshare --pid --fork --mount --mount-proc
if can_split_users; then
	refused_in "name space|run as root|CAP_SYS_ADMIN" "another user name space" unshare --user --map-root-user
	refused_in "name space|run as root|CAP_SYS_ADMIN" "another user and mount name space" \
		unshare --user --map-root-user --mount
	refused_in "name space|run as root|CAP_SYS_ADMIN" "another user and PID name space" \
		unshare --user --map-root-user --pid --fork --mount --mount-proc
	"$kvmstat" -r "$here/captures/vmx-6.1-mix2.dat" >"$tmp/wanted"
	unshare --user --map-root-user --pid --fork --mount --mount-proc \
		"$kvmstat" -r "$here/captures/vmx-6.1-mix2.dat" >"$tmp/out" 2>"$tmp/err"
	is "$?$(cat "$tmp/err" "$tmp/out")" "0$(cat "$tmp/wanted")" "a recording can be reported there"
else
	skip_check "needs user name spaces" "another user name space"
fi

# /proc.
[ $sanitized = yes ] || true_in /proc "no /proc" with_mounts "mount -t tmpfs nodev /proc"
for option in hidepid=1 hidepid=2 hidepid=4 subset=pid; do
	right_in "/proc mounted with $option" with_mounts "mount -t proc -o $option proc /proc"
done
true_in CAP_SYS_PTRACE "/proc mounted with hidepid=2, without CAP_SYS_PTRACE" \
	with_mounts "mount -t proc -o hidepid=2 proc /proc" \
	setpriv --bounding-set -sys_ptrace --inh-caps -sys_ptrace
mkdir "$tmp/proc"
# shellcheck disable=SC2016 # the inner shell's
start namespace unshare --pid --fork --kill-child bash -c 'mount -t proc proc "$0" && read -r' "$tmp/proc"
namespace=$pid
until_true 10 test -e "$tmp/proc/1/fd"
[ $sanitized = yes ] || true_in "/proc|PID name space" "the /proc of another PID name space" with_mounts "mount --bind $tmp/proc /proc"
end "$namespace" KILL
until_true 10 test ! -e "$tmp/proc/1"
[ $sanitized = yes ] || true_in "/proc|PID name space" "the /proc of one that has ended" with_mounts "mount --bind $tmp/proc /proc"

# /sys.
true_in /sys "/sys replaced by an empty directory" with_mounts "mount -t tmpfs nodev /sys"
right_in "/sys read-only" with_mounts "mount -o remount,bind,ro /sys"
read_only="mount -t tracefs nodev /sys/kernel/tracing && mount -o remount,bind,ro /sys/kernel/tracing"
right_in "tracefs read-only" with_mounts "$read_only"
right_in "debugfs read-only" \
	with_mounts "mount -t debugfs nodev /sys/kernel/debug && mount -o remount,bind,ro /sys/kernel/debug"
true_in "/sys|tracefs" "tracefs read-only, and no detached mounts" with_mounts "$read_only" \
	strace -f -qq -o /dev/null -e trace=fsopen -e inject=fsopen:error=ENOSYS
right_in "something else where tracefs and debugfs should be" \
	with_mounts "mount -t tmpfs nodev /sys/kernel/tracing && mount -t tmpfs nodev /sys/kernel/debug"

# A container with the host's processes, and few capabilities.
# in_container CAPABILITIES COMMAND...
in_container() {
	# shellcheck disable=SC2016 # the inner shell's
	unshare --mount --uts --ipc --net --cgroup bash -c 'mount -o remount,bind,ro /sys && exec "$@"' bash \
		setpriv --bounding-set "-all,+${1//,/,+}" --inh-caps "-all" "${@:2}"
}
needed="dac_override sys_admin sys_ptrace"
right_in "a container with the capabilities $needed" in_container "${needed// /,}"
for capability in $needed; do
	fewer=$(tr ' ' '\n' <<<"$needed" | grep -vx "$capability" | paste -sd ,)
	true_in "$everything" "and without $capability" in_container "$fewer"
	grep -Eqi "\b(CAP_)?$capability\b" "$top/kvmstat.1"
	ok $? "the manual names it"
done
right_in "a container with those that refusals name" in_container dac_read_search,sys_admin,sys_ptrace
right_in "a container with Docker's capabilities, sys_admin and sys_ptrace" in_container \
	chown,dac_override,fsetid,fowner,mknod,net_raw,setgid,setuid,setfcap,setpcap,net_bind_service,sys_chroot,kill,audit_write,sys_admin,sys_ptrace

end "$busy"
end "$idle"
until_true 2 nothing_left
ok $? "nothing is left"

done_testing
