#!/usr/bin/env bash
# A real monitor: QEMU boots its firmware with KVM.
. "$(dirname "$0")/lib.sh"
live_host
needs qemu-system-x86_64

qemu() {
	start "$1" qemu-system-x86_64 -enable-kvm -cpu host,-arch-capabilities -m 64 -display none \
		-nodefaults -no-user-config -serial none -monitor none "${@:2}"
}

# booted: that the reports have what the firmware does
booted() {
	sums "$tmp/boot.out" | awk -F'\t' -v p="$fw" '$1 == p && $2 == 0 { found = $3 > 1000 && $7 > 500 && $10 > 0 }
		END { exit !found }'
}
start_kvmstat boot -Hn 0.2
boot=$pid
qemu fw -smp 2 -name guest=fw,,1,debug-threads=on -nic user,model=virtio-net-pci
fw=$pid
qemu paused -S -name still
paused=$pid
until_true 10 booted
next_reports boot "$paused"
end "$boot"
is "$(grep -E "^($fw|$paused)	" "$tmp/boot.out" | tail -n 3 | cut -f1,2,12)" "$(printf '%s\t%s\t%s\n' "$fw" 0 fw,1 "$fw" 1 fw,1 \
	"$paused" 0 still | sort -n)" "a row for each vCPU, with the guest's name"
is "$(sums "$tmp/boot.out" | grep "^$paused	" | cut -f3- | tr '\t' '\n' | sort -u)" 0 \
	"a guest that is paused has only zeros"
booted
ok $? "its firmware makes exits, of these for port I/O: $(sums "$tmp/boot.out" | head -n 1 | xargs)"
is "$(grep "^$fw	?" "$tmp/boot.out")" "" "each exit has its vCPU"
end "$fw"
end "$paused"

# Of several -name, QEMU takes the last that names the guest, as it says itself.
qemu twice -S -monitor stdio -name first,process=other -name guest=sec,,ond --name debug-threads=on
echo "info name" >&"$hold"
until_true 20 grep -q "sec,ond" "$tmp/twice.out"
ok $? "QEMU's name for it: $(grep -o 'sec.*' "$tmp/twice.out")"
is "$("$kvmstat" -Hnp "$pid" 0.1 1 | cut -f12)" sec,ond "it is kvmstat's"
end "$pid"
qemu unnamed -S -name process=other
is "$(until_true 20 grep -qx other "/proc/$pid/comm" && "$kvmstat" -Hnp "$pid" 0.1 1 | cut -f12)" other \
	"without a name, it is that of its process"
end "$pid"

done_testing
