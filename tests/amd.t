#!/usr/bin/env bash
# An AMD host: in a machine that QEMU emulates, processor and all, Debian's kernel has a
# real kvm_amd, and kvmstat reports the guests that run there (tests/helpers/amd-init).
. "$(dirname "$0")/lib.sh"
. "$here/helpers/amd-machine"

make_machine helpers/amd-init trace-cmd
sed -n 's/^    \$ \(trace-cmd record .*\) sleep 60$/\1/p' "$top/README.md" >"$tmp/root/record"
run_machine
status=$?
cd "$tmp/results" || exit 1
but_late ./*/err*
ok $status "the machine ran to its end, within ten minutes"
[ $status -eq 0 ] || {
	why "$(cat "$tmp/qemu.err")"
	why "$(tail -n 20 "$tmp/console")"
	done_testing
}
seconds() {
	echo "$(($(cat "$1") / 10)).$(($(cat "$1") % 10)) s"
}
note "its shell ran after $(seconds booted), and for the last time after $(seconds ended)"

like "$(xargs <unloaded)" '^kvmstat: kvm: not loaded \(load it: modprobe kvm_intel, or kvm_amd; .*-r.* 1$' \
	"before kvm is loaded: one line that says what to do, status 1"
like "$(xargs <incomplete)" '^kvmstat: /dev/kvm: .*modprobe kvm_intel, or kvm_amd; .*-r.* 1$' "and before kvm_amd is"
is "$(cat unloaded.left)" "" "and no instance is left"

# told FILE: of what tests/guest printed, the rows that have counts.  Where KVM does not tell what
# it counted for each vCPU (before Linux 5.14), that is one row, of the vCPU "all".
told() {
	awk -F'\t' 'NF > 2' "$1" | sort -n -k2,2
}

# sums_only FILE: that it has only that row of counts
sums_only() {
	grep -q '	all	' "$1"
}

# as_told FILE <ROWS: the rows of kvmstat, with "all" for the vCPU if FILE has that
as_told() {
	if sums_only "$1"; then sed 's/	[0-9]*	/	all	/'; else cat; fi
}

# but_faults PAGES WANT <SUMS: the sums, with eptv as in WANT where these, and nothing else, explain
# it.  KVM's exits less those of the other columns are all its page faults.
# Spurious faults: two vCPUs that touch a page at the same time both fault, and pf_fixed has only
# the one that mapped it; up to PAGES.
# MMIO: a kernel that tells sums only has in pf_fixed the first access to each of the two pages too,
# which is a page fault, but mmiox for kvmstat, and KVM's mmio_exits.
but_faults() {
	awk -F'\t' -v OFS='\t' -v most="$1" '
		NR == FNR { fixed[$2] = $11; faults[$2] = $3 - $4 - $5 - $6 - $7 - $8; next }
		{ spurious = faults[$2] - fixed[$2] }
		$11 == faults[$2] && spurious > 0 && spurious <= most {
			print "# difference: spurious faults of vCPU " $2 ": " spurious >"/dev/stderr"
			$11 = fixed[$2]
		}
		$2 == "all" && $11 == faults[$2] && spurious < 0 && spurious >= -2 && $8 > 0 {
			print "# difference: MMIO in pf_fixed: " (-spurious) >"/dev/stderr"
			$11 = fixed[$2]
		}
		{ print }' "$2" -
}

names=(pid vcpu exits haltx irqx irqwx iox mmiox irqs emul eptv)

# counted FILE PAGES COLUMNS WHAT: that kvmstat counted of a guest what KVM did.  PAGES may
# be touched by vCPUs at the same time.  COLUMNS are not 0, or it did not do WHAT.
counted() {
	local column columns=
	told "$1" >"$1.want"
	grep "^$(cut -f1 "$1" | head -n 1)	" "${1%/*}/out" | as_told "$1" >"$1.rows"
	is "$(sums "$1.rows" | but_faults "$2" "$1.want" 2>"$1.differences")" "$(cat "$1.want")" \
		"$4: each column's sum is KVM's statistic"
	cat "$1.differences"
	for column in $3; do
		[ -s "$1.want" ] && ! cut -f "$column" "$1.want" | grep -qx 0 && columns+=" ${names[column - 1]}"
	done
	is "$(wc -w <<<"$columns")" "$(wc -w <<<"$3")" "and not zero:$columns"
}

# clean SCENARIO GUESTS: that kvmstat had rows for GUESTS and idle only, also from its
# recording, and left nothing
clean() {
	is "$(cut -f1,2 "$1/out" | sort -u)" "$(cut -f1,2 "${@:2}" idle | grep -v all | sort -u)" \
		"$1: a row for each vCPU, and no other"
	is "$(grep "^$(cut -f1 idle | head -n 1)	" "$1/out" | sort -u)" "$(cat idle)" \
		"$1: zeros for an idle guest"
	is "$(cat "$1/status" "$1/err" "$1/left")" 143 \
		"$1: it died of SIGTERM, said nothing and left no instance"
	same_rows 1 3 "$(head -n "$(wc -l <"$1/out")" "$1/again")" "$(cat "$1/out")" \
		"$1: -r of what -w wrote has the same rows"
}

# The pages are the code's, the stack's, and that of the interrupt's vector and handler.
counted unmounted/basic 1 "3 4 7 8 10" "port I/O, MMIO and HLT on two vCPUs"
counted unmounted/cpuid 0 "3 7 10" "CPUID"
counted unmounted/interrupts 3 "3 4 6 7 9 10" "interrupts"
counted unmounted/moving 1 "3 4 7 8 10" "vCPU threads that change CPU"
counted unmounted/turns 0 "3 4 7 8 10" "one thread that runs three vCPUs"
counted unmounted/irqchip 1 "3 7 8 10" "KVM's interrupt controller"
clean unmounted unmounted/{basic,cpuid,interrupts,moving,turns,irqchip}
is "$(grep -E ' (tracefs|debugfs) ' mounts)" "" "neither tracefs nor debugfs was mounted"
is "$(xargs <online)" "0 0-1 0 0-1" "a CPU is offline, comes, goes and comes"
counted offline/hotplug 1 "3 4 7 8 10" "meanwhile"
clean offline offline/hotplug
counted mounted/plain 1 "3 4 7 8 10" "tracefs and debugfs mounted"
clean mounted mounted/plain
# of KEYS...: of the guest's vCPUs, the sums of the counts of -e's keys that match
of() {
	awk -F'\t' -v key="^$2\$" 'NR == FNR { if (FNR == 1) pid = $1; next }
		$1 == pid && $3 ~ key { n[$2] += $4 } END { print n[0], n[1] }' keys/guest "keys/out.$1"
}

# sums_of KEYS...: the same, or their sum if KVM tells only that
sums_of() {
	if sums_only keys/guest; then of "$@" | awk '{ print $1 + $2 }'; else of "$@"; fi
}

# kvm COLUMN: what KVM counted for them
kvm() {
	told keys/guest | cut -f"$1" | xargs
}
# Where events do not tell the vCPU, six kvmstats at once may not find it in time: a row `?', and why.
is "$(cat keys/err.* | if sums_only keys/guest; then grep -v ': row ?: '; else cat; fi)" "" "-e says nothing"
is "$(sums_of vmexit '[^-].*')" "$(kvm 3)" "-e vmexit: all exits"
is "$(sums_of vmexit hlt)/$(sums_of vmexit io)/$(sums_of vmexit interrupt)" "$(kvm 4)/$(kvm 7)/$(kvm 5)" \
	"halts, port I/O and interrupts are KVM's statistics"
is "$(of ioport 0x10:out)/$(of ioport 0x10:in)" "100 100/100 100" "-e ioport: what the guest did"
is "$(of mmio 0xd0000:W)/$(of mmio 0xd0000:R)" "100 100/100 100" "-e mmio: what the guest did"
is "$(of msr 0x1b:R)/$(of msr 0x6e0:W)" "100 100/100 100" "-e msr: what the guest did"
is "$(of cpuid 0x7)/$(of hypercall 0xb)" "100 100/100 100" "-e cpuid, -e hypercall: what the guest did"
leaves='[^-].*'
! sums_only keys/guest || leaves=0x7 # such a KVM asks for leaf 1 itself when it makes a vCPU
is "$(of msr '[^-].*')/$(of cpuid "$leaves")/$(of hypercall '[^-].*')" \
	"$(of vmexit msr)/$(of vmexit cpuid)/$(of vmexit hypercall)" "and as many exits for each of these"
awk -F'\t' '$3 == "hlt" && $4 > 0 && $7 != "-" { n++; bad += $7 < 1000 || $9 < $7 || $8 < $9 }
	$3 == "io" && $7 != "-" { n++; bad += $7 <= 0 } END { exit !n || bad }' keys/out.vmexit
ok $? "a halt costs what user space slept at it, and port I/O something"
awk -F'\t' '$3 ~ /0x/ && $7 != "-" { n++; bad += $7 <= 0 || $9 < $7 || $8 < $9 } END { exit n < 8 || bad }' \
	keys/out.mmio keys/out.ioport keys/out.msr keys/out.cpuid keys/out.hypercall
ok $? "and each access its own"
for table in vmexit mmio ioport msr cpuid hypercall; do
	same_rows 1 4 "$(head -n "$(wc -l <keys/out.$table)" keys/again.$table)" "$(cat keys/out.$table)" \
		"-r of what -w -e $table wrote has the same rows"
done

like "$(cat full/err)" '^kvmstat: events lost: [0-9]+ on CPU' \
	"losses are reported where the host's own buffer would drop events"
is "$(cat full/block)" 0 "the host's own option block is not inherited"
is "$(cut -f1 reused/second | uniq)" "$(cat reused/thread)" "a thread's id comes into use again for a process"
counted reused/second 0 "3 7" "that process's guest, gone before it was looked at"
counted recorded/guest 0 "3 4 7 8 10" "recorded by trace-cmd"
is "$(cat recorded/status recorded/err)" 0 "its recording is read"
[ "$(($(cat recorded/now) - $(cat recorded/time)))" -le 10 ]
ok $? "and tells the date"
cat ./*/*.want | awk -F'\t' '{ irqx += $5; eptv += $11 } END { exit !(irqx && eptv) }'
ok $? "and irqx and eptv, which are chance in part, were not all zeros"
note "differences accepted: $(cat ./*/*.differences | grep -c difference), all in eptv, by the faults named there"

# The machine was killed while kvmstat recorded to its disk, with four rows a report.
e2fsck -fy "$tmp/disk" >/dev/null 2>&1 # so that the file system is as after the next start
debugfs -R "dump /night.dat $tmp/night.dat" "$tmp/disk" 2>/dev/null
"$kvmstat" -H -r "$tmp/night.dat" 0.25 >again 2>err
is "$? $(sed 's/^[^:]*: [^:]*: //; s/ 20[^ ]*T[^ ]*$/ TIME/' err)" \
	"3 it was cut, or is still being made: this is what it has up to TIME" "a host that failed: one line says that, and when, status 3"
head -n -4 again >whole # the last interval may be incomplete
[ $(($(wc -l <"$tmp/live") - $(wc -l <whole))) -le 48 ]
ok $? "the disk has all but the last three seconds: $(($(wc -l <whole) / 4)) reports of $(($(wc -l <"$tmp/live") / 4))"
same_rows 1 3 "$(cat whole)" "$(head -n "$(wc -l <whole)" "$tmp/live")" "and as they were live"
done_testing
