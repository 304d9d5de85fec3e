#!/usr/bin/env bash
# -e of recordings: what exits, MMIO, port I/O and the like were for, and what they cost.
. "$(dirname "$0")/lib.sh"
needs perl trace-cmd

captures=$here/captures

# count TABLE <EVENTS: of what trace-cmd report -N -t shows, by thread and key: the count,
# then the least, the greatest and the mean time, in hundredths of a microsecond, by
# perf-kvm's definition
cat >"$tmp/count.pl" <<'END'
use strict;
use warnings;
my $table = shift;
my (%since, %open, %n, %times);

sub ended {
	my ($tid, $time) = @_;
	push @{$times{$tid}{$open{$tid}}}, $time - $since{$tid};
}
while (<>) {
	my ($tid, $s, $ns, $event, $rest) = /-(\d+)\s+\[\d+\]\s+(\d+)\.(\d{9}): (\w+):\s+(.*)/ or next;
	my $time = $s * 1e9 + $ns;
	my $key;
	if ($event eq 'kvm_exit' && $table eq 'vmexit') {
		$key = $rest =~ /reason (.*?) ?rip/ ? $1 : $rest =~ /^TRAP: .*\((\w+)\)/ ? $1 : $rest =~ /^(\w+)/ ? $1 : die;
	} elsif ($event eq 'kvm_exit' && $table eq 'mmio') {
		($open{$tid}, $since{$tid}) = (undef, $time);
	} elsif ($event eq 'kvm_mmio' && $table eq 'mmio') {
		my ($kind, $gpa) = $rest =~ /^mmio (\S+) len \d+ gpa (0x[0-9a-f]+)/ or die;
		$key = "$gpa:W" if $kind eq 'write';
		if ($kind eq 'read') {
			$n{$tid}{"$gpa:R"}++;
			if (defined $since{$tid} && !defined $open{$tid}) {
				$open{$tid} = "$gpa:R";
				ended($tid, $time);
				$since{$tid} = undef;
			}
		}
	} elsif ($event eq 'kvm_pio' && $table eq 'ioport') {
		my ($kind, $port) = $rest =~ /^pio_(\w+) at (0x[0-9a-f]+)/ or die;
		$key = "$port:" . ($kind eq 'read' ? 'in' : 'out');
	} elsif ($event eq 'kvm_msr' && $table eq 'msr') {
		my ($kind, $msr) = $rest =~ /^msr_(\w+) ([0-9a-f]+) = / or die;
		$key = "0x$msr:" . ($kind eq 'read' ? 'R' : 'W');
	} elsif ($event eq 'kvm_cpuid' && $table eq 'cpuid') {
		$key = $rest =~ /^func ([0-9a-f]+) / ? "0x$1" : die;
	} elsif ($event eq 'kvm_hypercall' && $table eq 'hypercall') {
		$key = $rest =~ /^nr (0x[0-9a-f]+) / ? $1 : die;
	} elsif ($event eq 'kvm_entry') {
		ended($tid, $time) if defined $since{$tid} && defined $open{$tid};
		$since{$tid} = undef;
	}
	if (defined $key) {
		$n{$tid}{$key}++;
		($open{$tid}, $since{$tid}) = ($key, $time);
	}
}
for my $tid (keys %n) {
	for my $key (keys %{$n{$tid}}) {
		my @t = sort { $a <=> $b } @{$times{$tid}{$key} // []};
		my $sum = 0;
		$sum += $_ for @t;
		my @show = @t ? map { sprintf('%d.%02d', $_ / 1000, $_ / 10 % 100) } map { int } $t[0], $t[-1], $sum / @t :
			('-') x 3;
		print join("\t", $tid, $key, $n{$tid}{$key}, @show), "\n";
	}
}
END

# keys FILE TABLE: the same as kvmstat has it, by thread, too
keys() {
	awk -F'\t' -v OFS='\t' -v file="${1##*/}" 'NR == FNR { if ($1 == file) tid[$2, $3] = $4; next }
		$3 != "-" { print tid[$1, $2], $3, $4, $7, $8, $9 }' "$captures/kvm-counts.tsv" \
		<("$kvmstat" -H -e "$2" -r "$1" 2>/dev/null) | sort
}
tables=(vmexit mmio ioport msr cpuid hypercall)
lines=0
for file in "$captures"/{arm64,svm,vmx}*.dat; do
	for table in "${tables[@]}"; do
		[[ ${file##*/} != arm64* || $table = vmexit || $table = mmio ]] || continue
		trace-cmd report -N -q -t -i "$file" 2>/dev/null | perl "$tmp/count.pl" $table | sort >"$tmp/want"
		keys "$file" $table >"$tmp/got"
		what="counts and times are those of the events that trace-cmd shows"
		if [[ $file = *overrun* ]]; then
			what="counts are those of the events that trace-cmd shows"
			cut -f1-3 "$tmp/want" >"$tmp/want3"
			mv "$tmp/want3" "$tmp/want"
			cut -f1-3 "$tmp/got" >"$tmp/got3"
			mv "$tmp/got3" "$tmp/got"
		fi
		is "$(cat "$tmp/got")" "$(cat "$tmp/want")" "${file##*/}, -e $table: $what"
		lines=$((lines + $(wc -l <"$tmp/want")))
	done
	is "$("$kvmstat" -H -e vmexit -r "$file" 2>/dev/null | awk -F'\t' '{ n[$1 " " $2] += $4 }
		END { for (k in n) print k, n[k] }' | sort)" \
		"$("$kvmstat" -H -r "$file" 2>/dev/null | awk -F'\t' '{ print $1, $2, $3 }' | sort)" \
		"${file##*/}: they are together the usual table's exits"
	is "$("$kvmstat" -H -e vmexit -r "$file" 0.01 2>/dev/null | awk -F'\t' '{ n[$1 " " $2 " " $3] += $4 }
		END { for (k in n) if (n[k]) print k, n[k] }' | sort)" \
		"$("$kvmstat" -H -e vmexit -r "$file" 2>/dev/null | awk -F'\t' '{ print $1 " " $2 " " $3, $4 }' | sort)" \
		"and short intervals have together what the whole has"
done
[ "$lines" -gt 80 ]
ok $? "many rows were compared ($lines)"

file=$captures/svm-6.1-mix2.dat
is "$("$kvmstat" -e vmexit -p 759 -r "$file" | head -n 4)" "\
   pid vcpu | vmexit            count  count%   time%   min us   max us   avg us
   759    0 | npf                 270   37.44   67.84    28.47  4325.26   115.41
   759    0 | io                  201   27.87   22.13    21.47  4418.68    50.84
   759    0 | cpuid               100   13.86    2.64    11.14    23.79    12.13" "the table"
is "$("$kvmstat" -H -e vmexit -k time -r "$captures/vmx-6.1-mix2irq.dat" | head -n 2 | cut -f3,4,6 | xargs)" \
	"HLT 14 33.24 PREEMPTION_TIMER 47 26.13" "-k time: the most costly first"
is "$("$kvmstat" -H -e vmexit -k count -r "$captures/vmx-6.1-mix2irq.dat" | head -n 1 | cut -f3,4 | xargs)" \
	"EPT_MISCONFIG 150" "-k count: the most frequent first"
for table in ioport msr cpuid hypercall; do
	event=kvm_$table
	"$kvmstat" -H -e $table -r "$captures/arm64-6.1-mix2.dat" >"$tmp/out" 2>"$tmp/err"
	is "$?$(cat "$tmp/out" "$tmp/err")" "1kvmstat: $captures/arm64-6.1-mix2.dat: has no kvm/${event/ioport/pio} \
(record with kvmstat -w -e $table, or trace-cmd record -e kvm)" "what a recording has no events for is said"
done

done_testing
