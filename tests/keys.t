#!/usr/bin/env bash
# -e: what exits, MMIO, port I/O and the like of live guests were for, and what they cost.
. "$(dirname "$0")/lib.sh"
live_host
alone

tables=(vmexit mmio ioport msr cpuid hypercall)

start_guest idle -P -v 2
idle=$pid
start_guest known -d -w -v 2 -n 300 -l oiimrwgpc -N -name guest=web
known=$pid known_in=$hold
for table in "${tables[@]}"; do
	start "$table" "$kvmstat" -H -n -e $table -w "$tmp/$table.dat" 0.1
	eval "$table=\$pid"
	until_true 10 tracing "$pid"
	enabled=$(cd "$instances/kvmstat.$pid/events" && grep -l 1 ./kvm/*/enable | cut -d/ -f3 | xargs)
	if software_backend; then
		case $table in
		vmexit) want='kvm_emulate_insn kvm_fpu kvm_inj_virq kvm_userspace_exit' ;;
		mmio) want=kvm_mmio ;;
		ioport) want=kvm_pio ;;
		*) want=kvm_$table ;;
		esac
	else
		case $table in
		vmexit)
			want='kvm_entry kvm_exit'
			[ ! -e "$instances/../events/kvm/kvm_vmgexit_enter" ] || want+=' kvm_vmgexit_enter' ;;
		mmio) want='kvm_entry kvm_exit kvm_mmio' ;;
		ioport) want='kvm_entry kvm_pio' ;;
		*) want=$(printf '%s\n' kvm_entry "kvm_$table" | sort | xargs) ;;
		esac
	fi
	is "$enabled" "$want" "-e $table enables what it needs, and no other event"
done
echo >&"$known_in"
until_true 20 test -s "$tmp/known.out"
for table in "${tables[@]}"; do
	next_reports $table "$idle"
	end "${!table}"
	but_late "$tmp/$table.err"
	is "$status$(cat "$tmp/$table.err")" 143 "-e $table: it went on to the end"
	same_rows 1 4 "$("$kvmstat" -H -n -e $table -r "$tmp/$table.dat" 0.1 | head -n "$(wc -l <"$tmp/$table.out")")" \
		"$(cat "$tmp/$table.out")" "-r of what -w recorded: the same rows"
	is "$(awk -F'\t' -v p="$idle" '$1 == p { print $2, $3, $4, $5, $6, $7, $8, $9, $10 }' "$tmp/$table.out" | sort -u)" \
		$'0 - 0 0.00 0.00 0.00 0.00 0.00 guest\n1 - 0 0.00 0.00 0.00 0.00 0.00 guest' \
		"-e $table: a vCPU that does nothing has one row, of zeros"
done

# known TABLE: of the known guest, vCPU, key and count
known() {
	awk -F'\t' -v p="$known" '$1 == p && $10 == "web" && $3 != "-" { n[$2 " " $3] += $4 }
		END { for (k in n) print k, n[k] }' "$tmp/$1.out" | sort
}
is "$(known ioport)" "$(printf '%s 0x10:in 600\n%s 0x10:out 300\n%s 0x30:out 1\n' 0 0 0 1 1 1)" \
	"-e ioport: ports and directions"
is "$(known mmio)" "$(printf '%s 0xd0000:R 300\n%s 0xd0000:W 300\n%s 0xd0fff:W 300\n%s 0xd1000:W 300\n' \
	0 0 0 0 1 1 1 1)" \
	"-e mmio: addresses, reads and writes"
is "$(known msr)" "$(printf '%s 0x1b:R 300\n%s 0x6e0:W 300\n' 0 0 1 1)" "-e msr: registers, reads and writes"
is "$(known cpuid)" "$(printf '%s 0x7 300\n' 0 1)" "-e cpuid: leaves"
if software_backend; then
	is "$(known vmexit)" "$(printf '%s KVM_EXIT_IO 901\n%s KVM_EXIT_MMIO 900\n' 0 0 1 1)" \
		"-e vmexit: KVM_EXIT reasons, and how often"
	is "$(cut -f7 "$tmp"/{mmio,ioport,msr,cpuid,hypercall}.out | sort -u | xargs)" "- 0.00" \
		"times that nothing tells are not made up"
	# Asleep 5 ms in user space at each HLT: that is what it costs, and never less.
	end "$known"
	start_guest sleeper -n 0 -l ooh -s 5000
	sleeper=$pid
	"$kvmstat" -H -e vmexit -k time -p "$sleeper" 1 1 >"$tmp/out"
	awk -F'\t' 'NR == 1 { exit !($3 == "KVM_EXIT_HLT" && $6 > 80 && $7 >= 5000 && $9 >= 5000 && $8 >= $9) }' "$tmp/out"
	ok $? "-e vmexit: a time is that from the exit until user space goes on ($(head -n 1 "$tmp/out" | cut -f3-))"
	awk -F'\t' 'NR == 2 { exit !($3 == "KVM_EXIT_IO" && $7 > 0 && $9 < 2000) }' "$tmp/out"
	ok $? "and of each reason its own"
fi
done_testing
