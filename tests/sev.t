#!/usr/bin/env bash
# Guests with SEV-ES.  No such host was recorded: helpers/sev.pl makes its recordings of a captured
# one's bytes, by what the kernel's source says.
. "$(dirname "$0")/lib.sh"
needs perl

plain=$here/captures/svm-6.1-mix2.dat
perl "$here/helpers/sev.pl" <"$plain" >"$tmp/sev.dat" && perl "$here/helpers/sev.pl" silent <"$plain" >"$tmp/silent.dat" &&
	LC_ALL=C sed s/kvm_vmgexit_enter/kvm_vmgexit_other/ "$tmp/sev.dat" >"$tmp/untold.dat"
ok $? "recordings are made"

# counts FILE: the columns but emul, whose events helpers/sev.pl used up
counts() {
	"$kvmstat" -H -r "$1" | cut -f10 --complement
}

# reasons FILE: vCPU, reason, count, and the longest and shortest time
reasons() {
	"$kvmstat" -H -e vmexit -r "$1" | cut -f2-4,7,8 | sort
}

is "$(counts "$tmp/sev.dat")" "$(counts "$plain")" "VMGEXIT counts by the guest's reason: the columns are those of KVM's own counts"
is "$(counts "$tmp/silent.dat")" "$(counts "$plain")" "also without kvm_mmio: each counts once"
is "$(reasons "$tmp/sev.dat" | grep -v 'npf\|mmio')" "$(reasons "$plain" | grep -v npf)" "-e vmexit: these reasons, with their times"
is "$(reasons "$tmp/sev.dat" | awk -F'\t' '/npf|mmio/ { n[$1] += $3 } END { print n[0], n[1] }')" \
	"$(reasons "$plain" | awk -F'\t' '/npf/ { n[$1] += $3 } END { print n[0], n[1] }')" "and reading and writing MMIO, each once"
like "$(reasons "$tmp/sev.dat")" '^0	vmgexit_mmio_write	[0-9]' "by the kernel's names"
is "$(reasons "$tmp/untold.dat" | awk -F'\t' '{ n[$1] += $3 } /vmgexit/ { v[$1] = $3 } END { print n[0], n[1], (v[0] > 600 && v[1] > 600) }')" \
	"721 724 1" "without the guest's reasons, they are VMGEXIT"

done_testing
