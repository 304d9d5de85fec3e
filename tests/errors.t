#!/usr/bin/env bash
# Errors: one line that says what to do, status 1, and nothing to clean up.
. "$(dirname "$0")/lib.sh"
live_host
needs strace

own_name
chmod 755 "$tmp"

# fails WHAT LINE COMMAND...
fails() {
	local what=$1 line=$2 status
	shift 2
	"$@" >"$tmp/out" 2>"$tmp/err"
	status=$?
	is "$status$(cat "$tmp/out")" 1 "$what: status 1"
	is "$(sed 's/cpu[0-9][0-9]*/cpuN/' "$tmp/err")" "kvmstat: $line" "$what: one line that says what to do"
	nothing_left
	ok $? "$what: nothing is left"
}

rights="run it as the host's root; in a container, with --pid=host, --userns=host, and --privileged or \
CAP_SYS_ADMIN, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH; recordings (-r) need none of this"
load="load it: modprobe kvm_intel, or kvm_amd; if that fails, virtualization is off in the firmware or, in a \
virtual machine, on its host; recordings (-r) need none of this"

# inject SYSCALL ERROR WHEN: runs kvmstat with that call failing
inject() {
	strace -qq -o /dev/null -e trace="$1" -e "inject=$1:error=$2:when=$3" "$kvmstat" 0.1 1
}

fails "not root" "/sys/kernel/tracing: Operation not permitted (run as root; recordings (-r) need no rights)" \
	setpriv --reuid 65534 --regid 65534 --clear-groups "$kvmstat" 0.1 1
mount -t tracefs nodev /sys/kernel/tracing
fails "not root, tracefs mounted" "/sys/kernel/tracing: Permission denied (run as root; recordings (-r) need no rights)" \
	setpriv --reuid 65534 --regid 65534 --clear-groups "$kvmstat" 0.1 1
umount /sys/kernel/tracing
fails "no tracefs in the kernel" "/sys/kernel/tracing: No such device (the kernel has no tracefs: it \
needs CONFIG_FTRACE and CONFIG_EVENT_TRACING)" inject fsopen ENODEV 3
fails "no detached mounts" "/sys/kernel/tracing: Function not implemented (mount it: mount -t tracefs \
nodev /sys/kernel/tracing)" inject fsopen ENOSYS 3
fails "root without capabilities" "/sys/kernel/tracing: Operation not permitted (the kernel is locked \
down, or root has few rights here: $rights)" \
	setpriv --bounding-set -all --inh-caps -all "$kvmstat" 0.1 1
fails "root without one of them" "CAP_SYS_PTRACE: missing, and other users' guests would be hidden ($rights)" \
	setpriv --bounding-set -sys_ptrace --inh-caps -sys_ptrace "$kvmstat" 0.1 1
fails "locked down" "tracefs instance: Operation not permitted (the kernel is locked down, or root has few \
rights here: $rights)" inject mkdirat EPERM 1
mkdir "$tmp/security"
echo 'none integrity [confidentiality]' >"$tmp/security/lockdown"
mount --bind "$tmp/security" /sys/kernel/security
fails "locked down, and it shows" "tracefs instance: Operation not permitted (the kernel is locked \
down: boot it without lockdown=confidentiality)" inject mkdirat EPERM 1
umount /sys/kernel/security
call=$(strace -e trace=faccessat,faccessat2 "$kvmstat" 0.1 1 2>&1 >/dev/null |
	sed -n 's/^\(faccessat2*\)(.*events\/kvm.*/\1/p')
fails "kvm is not loaded" "kvm: not loaded ($load)" inject "$call" ENOENT 1
nth=$(strace -e trace="$call" "$kvmstat" 0.1 1 2>&1 >/dev/null | grep -n class/misc/kvm | cut -d : -f 1)
fails "kvm is loaded, its module for the processor is not" \
	"/dev/kvm: the module that makes it is not loaded ($load)" inject "$call" ENOENT "${nth:-0}"
fails "too much buffer" "buffer_size_kb: Cannot allocate memory (ask for less buffer with -b)" \
	"$kvmstat" -b 1000000000 0.1 1
# Which file is one too many differs from host to host: each has its turn.
wanted='^kvmstat: [^:]+: Too many open files \(raise the limit of open files: ulimit -n, or sysctl fs.file-max\)$'
: >"$tmp/lines"
for ((n = 4; n < 100; n++)); do
	prlimit --nofile=$n:$n "$kvmstat" 0.1 1 >"$tmp/out" 2>"$tmp/err"
	status=$?
	[ $status -ne 0 ] || break
	[ "$status $(wc -l <"$tmp/err") $(wc -c <"$tmp/out")" = "1 1 0" ] || echo "$n: status $status" >>"$tmp/lines"
	cat "$tmp/err" >>"$tmp/lines"
done
is "$status $(grep -Ev "$wanted" "$tmp/lines")" "0 " "too few open files: status 1, and one line that says what to do"
[ "$(sort -u "$tmp/lines" | wc -l)" -gt 5 ]
ok $? "wherever that is noticed"
nothing_left
ok $? "and nothing is left"
prlimit --nofile=9:1000 "$kvmstat" 0.1 1 >/dev/null 2>&1
is $? 0 "a soft limit of open files is raised"
done_testing
