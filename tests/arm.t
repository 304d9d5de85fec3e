#!/usr/bin/env bash
# An arm64 host: in a machine that QEMU emulates, processor and all, Debian's kernel has a
# real KVM, and kvmstat reports the guests that run there (tests/helpers/risc-init).
. "$(dirname "$0")/lib.sh"
. "$here/helpers/risc-machine"

run_machine arm64 bookworm linux-image-cloud-arm64 aarch64-linux-gnu ttyAMA0 600 qemu-system-aarch64 \
	-machine virt,virtualization=on,gic-version=3 -cpu cortex-a57
clean
same_rows 1 3 "$(head -n "$(wc -l <out)" again)" "$(cat out)" "-r of what -w wrote has the same rows"
each 1 one
each 2 two
each 3 three named moving early
is "$(rows spinning)" "$(kvm spinning)" "spinning: exits and mmiox are KVM's, irqx the rest"
is "$(rows turns)" "$(kvm turns)" "turns: one thread that runs three vCPUs counts for each of them"
is "$(grep -c '	?	' out)" 0 "no row is of a vCPU that is not known"
is "$(cat err.*)" "" "-e says nothing"
is "$(of vmexit WFx)/$(of vmexit HVC64)" "$(column keys 4) 0/20 20 0" "-e vmexit: halts are KVM's, calls the guest's"
is "$(of mmio 0x10000010:W)/$(of mmio 0x10000010:R)" "50 50 0/50 50 0" "-e mmio: what the guest did"
for table in vmexit mmio; do
	same_rows 1 4 "$(head -n "$(wc -l <out.$table)" again.$table)" "$(cat out.$table)" \
		"-r of what -w -e $table wrote has the same rows"
done
done_testing
