#!/usr/bin/env bash
# A riscv64 host, as tests/arm.t has an arm64 one.  No event tells there which vCPU a thread runs:
# what a thread without a name did before it was seen to sleep is in the row `?'.
. "$(dirname "$0")/lib.sh"
. "$here/helpers/risc-machine"

# guest VCPU FILE: what all rows of the guest have in sum, as if they were of one vCPU
guest() {
	awk -F'\t' -v OFS='\t' '{ $2 = "-"; print }' >all
	sums all
}

run_machine riscv64 trixie linux-image-riscv64 riscv64-linux-gnu ttyS0 900 qemu-system-riscv64 \
	-machine virt -cpu rv64,h=true
clean
is "$(head -n "$(wc -l <out)" again | guest)" "$(guest <out)" "-r of what -w wrote has the same sums of each guest"
each 1 one
each 3 named
for file in two three moving spinning early; do
	is "$(rows $file | guest)" "$(kvm $file | guest)" \
		"$file: all rows together have KVM's exits, haltx and mmiox, irqx and eptv the rest"
	rows "$file" | awk -F'\t' 'NR == FNR { kvm[$2] = $3; next } $2 != "?" && $3 > kvm[$2]' <(kvm "$file") - >"$tmp/more"
	is "$(cat "$tmp/more")" "" "and no vCPU has more than its own"
done
is "$(rows early | awk -F'\t' '$2 != "?" && $3 > 0' | wc -l)" 3 "early: a thread's vCPU is known once it sleeps"
is "$(grep -c ': row ?: a thread ' err)" "$(awk '$2 == "?" { print $1 }' out | sort -u | wc -l)" \
	"a line says once of each guest why it has a row ?: $(grep ': row ?: ' err | head -n 1)"
is "$(grep -hv ': row ?: ' err.vmexit err.mmio)" "kvmstat: kvm/kvm_mmio: never fires on this architecture (leave -e mmio out)" \
	"-e mmio is refused, and -e vmexit says nothing"
# keys NAME: of the guest keys, whichever vCPU it was
keys() {
	of vmexit "$1" | awk '{ print $1 + $2 + $3 }'
}
is "$(keys 'Environment call from VS-mode') $(keys 'Load guest-page fault')" "40 100" \
	"-e vmexit: what the guest did, by the specification's names"
is "$(keys 'Virtual instruction')" "$(kvm keys | awk '{ n += $4 } END { print n }')" "and KVM's halts"
same_rows 1 4 "$(head -n "$(wc -l <out.vmexit)" again.vmexit)" "$(cat out.vmexit)" \
	"-r of what -w -e vmexit wrote has the same rows"
done_testing
