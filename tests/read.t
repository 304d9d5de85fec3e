#!/usr/bin/env bash
# -r: of the captures, and of what is no recording, or lies.
. "$(dirname "$0")/lib.sh"
needs perl

captures=$here/captures

# What trace-cmd shows of a recording, with stamps in nanoseconds.
events() {
	trace-cmd report --nodate -t -q -i "$1" 2>/dev/null
}

# unit.t compares each cell with KVM's own count.

for file in "$captures"/*.dat; do
	"$kvmstat" -H -r "$file" 0.01 >"$tmp/short" 2>/dev/null
	is "$(sums "$tmp/short")" "$("$kvmstat" -H -r "$file" 2>/dev/null | sort -n -k1,1 -k2,2)" \
		"${file##*/}: short intervals have together what the whole has"
done
is "$("$kvmstat" -H -n -r "$captures/vmx-6.1-mix2.dat")" \
	$'700\t0\t721\t100\t0\t0\t201\t220\t0\t220\t50\tguest\n700\t1\t723\t100\t0\t0\t201\t220\t0\t220\t52\tguest' \
	"-r reports the whole of a recording"
is "$("$kvmstat" -H -p 1,700 -r "$captures/vmx-6.1-mix2.dat" | wc -l)" 2 "-p: a process of the recording"
"$kvmstat" -H -p 1 -r "$captures/vmx-6.1-mix2.dat" >"$tmp/out" 2>"$tmp/err"
is "$?$(cat "$tmp/out" "$tmp/err")" \
	"0kvmstat: $captures/vmx-6.1-mix2.dat: no virtual machine in the processes of -p" "-p: and none"
"$kvmstat" -H -r "$captures/svm-6.1-overrun.dat" >"$tmp/out" 2>"$tmp/err"
is "$? $(cat "$tmp/err")" "3 kvmstat: $captures/svm-6.1-overrun.dat: events lost: 15721 on CPU 0 \
(record with larger buffers)" "events that a recording lost are said, and the status is 3"
"$kvmstat" -H -T u -r "$captures/svm-6.1-overrun.dat" 0.01 2>&1 | cut -f 1,4 | cut -d : -f 4- >"$tmp/out"
is "$(awk '/as before/ { n++; getline; last = $0 } END { print n, last }' "$tmp/out")" $'8 16.35\t37' \
	"before each report that may lack some of them: the first event after them is in the one of 16.35"

is "$("$kvmstat" -H -e vmexit -r "$captures/riscv64-6.12-mix2.dat" | sed -n 's/^144	1	//p' | cut -f1,2)" \
	"$(printf '%s\t%d\n' 'Store/AMO guest-page fault' 91 'Load guest-page fault' 50 \
		'Environment call from VS-mode' 20 'Virtual instruction' 20 'Instruction guest-page fault' 1 \
		'Supervisor software interrupt' 1)" "-e vmexit on RISC-V: the causes, by the specification's names"
perl -0777 -pe 's/\x05\0{6}\x80/\x15\0\0\0\0\0\0\x80/g; s/\x01\0{6}\x80/\x15\0\0\0\0\0\0\x80/g' \
	"$captures/riscv64-6.12-mix2.dat" >"$tmp/nameless.dat"
is "$("$kvmstat" -H -e vmexit -r "$tmp/nameless.dat" | grep -c '	0x8000000000000015	1')" 1 \
	"one that has no name by its number, with the bit of interrupts"
"$kvmstat" -e mmio -r "$captures/riscv64-6.12-mix2.dat" >"$tmp/out" 2>"$tmp/err"
is "$?$(cat "$tmp/out" "$tmp/err")" \
	"1kvmstat: kvm/kvm_mmio: never fires on this architecture (leave -e mmio out)" \
	"-e mmio on RISC-V is refused, not empty"

is "$("$kvmstat" -H -r "$captures/vmx-6.1-mix2.dat" 0.01 2 | wc -l)" 4 "count ends a recording's reports, too"
# Intervals, against a count of what trace-cmd shows: kvm_exit by interval and thread.
if has trace-cmd; then
	interval=0.01
	for file in vmx-6.1-mix2irq svm-6.1-mix2; do
		events "$captures/$file.dat" | perl -ne '
			BEGIN { $interval = '"$interval"' * 1e9 }
			next unless /-(\d+)\s+\[\d+\]\s+(\d+)\.(\d{9}): (\w+):/;
			my ($tid, $time, $event) = ($1, $2 * 1e9 + $3, $4);
			$start //= $time;
			$n{int(($time - $start) / $interval)}{$tid}++ if $event eq "kvm_exit";
			END { for my $i (sort { $a <=> $b } keys %n) { printf("%d %d %d\n", $i, $_, $n{$i}{$_})
				for sort { $a <=> $b } keys %{$n{$i}} } }' >"$tmp/want"
		"$kvmstat" -H -T u -r "$captures/$file.dat" $interval | awk -F'\t' '
			NR == FNR { tid[$2, $3] = $4; next } $1 != time { n++; time = $1 }
			$4 > 0 { print n - 1, tid[$2, $3], $4 }' "$captures/kvm-counts.tsv" - >"$tmp/got"
		[ "$(wc -l <"$tmp/want")" -gt 5 ]
		is "$?$(cat "$tmp/got")" "0$(cat "$tmp/want")" \
			"$file.dat: exits by interval from the first event on, as trace-cmd's stamps tell"
	done
	first=$(events "$captures/vmx-6.1-mix2.dat" | sed -n 's/.*\] *\([0-9]*\)\.[0-9]*:.*/\1/p' | head -n 1)
	[ "$("$kvmstat" -H -T d -r "$captures/vmx-6.1-mix2.dat" | cut -f1 | head -n 1)" -ge "$first" ]
	ok $? "-T: where nothing tells the date, the seconds of the recording's clock"
fi
is "$("$kvmstat" -T u -r "$captures/vmx-6.1-mix2.dat" 1 | awk '{ print length }' | uniq | wc -l)" 1 \
	"and the columns stand below their names, however few they are"

# Threads without a GUEST option are shown by their own ids, and by their names.
perl -0777 -pe 's/\x0d\x00(\x22\x00\x00\x00guest)/\x63\x00$1/; s/271 vcpu0/271 vcpu7/; s/272 vcpu1/272 other/' \
	"$captures/arm64-6.1-mix2.dat" >"$tmp/told.dat"
is "$("$kvmstat" -H -n -r "$tmp/told.dat" | cut -f1-3,12)" $'271\t0\t202\tvcpu7\n272\t1\t206\tother' \
	"without GUEST options: the thread's own id and name, and the vCPU that an event tells"
# untold FILE: a copy of it in which no event tells the vCPU, as -w recorded before 1.4
untold() {
	perl -0777 -pe 's/name: kvm_get_timer_map\n/name: xvm_get_timer_map\n/' "$1"
}
untold "$tmp/told.dat" >"$tmp/unnamed.dat"
is "$("$kvmstat" -H -n -r "$tmp/unnamed.dat" | cut -f1-3,12)" $'271\t7\t202\tvcpu7\n272\t?\t206\tother' \
	"or, if none does, the name"
# with_options NAME PERL: a copy of that capture with the options that PERL gives before its own
with_options() {
	perl -0777 -pe 'sub option { my ($type, $body) = @_; return pack("SL", $type, length $body) . $body; }
		my $options = do { '"$2"' };
		my $cpus = unpack("L", substr($_, index($_, "options  ") - 4, 4));
		s/(options  \0)/$1$options/;
		for my $cpu (0 .. $cpus - 1) { # where its sub-buffers are now
			my $at = \substr($_, index($_, "flyrecord") + 10 + 16 * $cpu, 8);
			$$at = pack("Q", unpack("Q", $$at) + length $options);
		}' <(untold "$captures/arm64-6.1-mix2.dat") >"$tmp/$1"
}
with_options moved.dat 's/\x0d\x00(\x22\x00\x00\x00guest)/\x63\x00$1/;
	option(9, "kvmstat, reports from 1 to 9000000000000000000 ns\0") .
		option(13, "x\0" . pack("QL(LL)2(QQ)2", 270, 2, 0xffffffff, 271, 1, 272, (1, 9e18) x 2))'
is "$("$kvmstat" -H -r "$tmp/moved.dat" | cut -f1-3)" $'270\t1\t206\n270\t?\t202' \
	"what kvmstat recorded of a thread without a vCPU is in no vCPU's row"
whole=$("$kvmstat" -H -r "$tmp/unnamed.dat")
for interval in 0.0{10..99}; do
	"$kvmstat" -H -r "$tmp/unnamed.dat" "$interval" | sums /dev/stdin | cmp -s - <(sort <<<"$whole") || echo "$interval"
done >"$tmp/differ"
is "$(cat "$tmp/differ")" "" "and no exit for MMIO is taken for another one where an interval ends"

# What is no recording, or lies.

# says WHY FILE [OPERANDS...]: that -r FILE ends with status 1 and that one line, and needs no memory
says() {
	local why=$1 file=$2 limit=unlimited
	shift 2
	{ (ulimit -v 65536 && "$kvmstat" -V >/dev/null) && limit=65536; } 2>/dev/null # not with ASan
	(ulimit -v $limit && timeout 60 "$kvmstat" -r "$file" "$@" >"$tmp/out" 2>"$tmp/err")
	is "$?$(cat "$tmp/err")" "1kvmstat: $file: $why" "-r of ${file##*/}: $why"
}

# edit NAME PERL: a copy of a capture that PERL changes ($_ is all of it, $end where "flyrecord" is)
edit() {
	perl -0777 -pe "\$end = index(\$_, 'flyrecord'); $2" "$captures/svm-6.1-mix2.dat" >"$tmp/$1"
}
damaged='(damaged: copy or record it again)'
: >"$tmp/empty"
says "not a recording of trace-cmd or kvmstat" "$tmp/empty"
says "not a recording of trace-cmd or kvmstat" "$here/lib.sh"
says "No such file or directory (give -r a recording)" "$tmp/nothing"
says "not a regular file (give -r a recording)" "$tmp"
mkfifo "$tmp/fifo"
says "a pipe, and -r has to read at any place (write it to a file first)" "$tmp/fifo"
printf '\037\213\010\000%0100d' 0 >"$tmp/x.gz"
printf '\3757zXZ\000%0100d' 0 >"$tmp/x.xz"
printf '\050\265\057\375%0100d' 0 >"$tmp/x.zst"
printf 'BZh91AY%0100d' 0 >"$tmp/x.bz2"
printf 'PERFILE2%0100d' 0 >"$tmp/perf.data"
says "compressed by gzip (decompress it first)" "$tmp/x.gz"
says "compressed by xz (decompress it first)" "$tmp/x.xz"
says "compressed by zstd (decompress it first)" "$tmp/x.zst"
says "compressed by bzip2 (decompress it first)" "$tmp/x.bz2"
says "of perf record (record with kvmstat -w, or trace-cmd record -e kvm)" "$tmp/perf.data"
edit big-endian.dat 'substr($_, 12, 1) = "\1"'
says "of a big-endian host (kvmstat reads those of little-endian hosts only)" "$tmp/big-endian.dat"
edit no-endian.dat 'substr($_, 12, 1) = "\2"'
says "byte 13: a number that cannot be $damaged" "$tmp/no-endian.dat"
edit version7.dat 's/tracing6/tracing7/'
says "version 7 (make version 6 of it: trace-cmd convert --file-version 6 -i $tmp/version7.dat -o NEW)" \
	"$tmp/version7.dat"
edit version8.dat 's/tracing6/tracing8/'
says "of a version that is not known (it has to be 6)" "$tmp/version8.dat"
edit text.dat 's/flyrecord/latency  /'
says "a text, no events (make one with trace-cmd record)" "$tmp/text.dat"
edit sched.dat 's/name: kvm_(exit|userspace_exit)\n/"name: xxx_$1\n"/ge'
says "has no kvm/kvm_exit (record with kvmstat -w, or trace-cmd record -e kvm)" "$tmp/sched.dat"
for event in kvm_inj_virq kvm_emulate_insn kvm_mmio; do
	edit "$event.dat" "s/name: $event\n/'name: x' . substr('$event', 1) . \"\n\"/e"
	says "has no kvm/$event (record with kvmstat -w, or trace-cmd record -e kvm)" "$tmp/$event.dat"
	"$kvmstat" -e vmexit -r "$tmp/$event.dat" >/dev/null
	is $? 0 "and it does not matter to -e vmexit"
done
edit software.dat 's/name: kvm_(exit|inj_virq)\n/"name: xxx_$1\n"/ge'
says "has no kvm/kvm_inj_virq (record with kvmstat -w, or trace-cmd record -e kvm)" "$tmp/software.dat"
perl -0777 -pe 's/name: kvm_mmio\n/name: xvm_mmio\n/' "$captures/arm64-6.1-mix2.dat" >"$tmp/arm64.dat"
says "has no kvm/kvm_mmio (record with kvmstat -w, or trace-cmd record -e kvm)" "$tmp/arm64.dat"
perl -0777 -pe 's/(name: kvm_(?:exit|entry)\nID: )(\d+)/$1 . "9" x length $2/ge' "$captures/arm64-6.1-mix2.dat" >"$tmp/idle.dat"
is "$("$kvmstat" -H -r "$tmp/idle.dat" 2>&1 | cut -f1-3)" $'268\t0\t0\n268\t1\t0' \
	"of an arm64 host without an exit: zeros"
perl -0777 -pe 's/ scause;/ xcause;/' "$captures/riscv64-6.12-mix2.dat" >"$tmp/unknown.dat"
says "the reasons of its architecture are not known (leave -e vmexit out)" "$tmp/unknown.dat" -e vmexit
is "$("$kvmstat" -H -r "$tmp/unknown.dat" | cut -f1-4)" $'144\t0\t182\t0\n144\t1\t183\t0' \
	"but how many exits there were"
edit cpus.dat 'substr($_, index($_, "options  ") - 4, 4) = "\0\0\0\x80"'
like "$("$kvmstat" -r "$tmp/cpus.dat" 2>&1)" "^kvmstat: $tmp/cpus.dat: byte [0-9]+: a number that cannot be .damaged" \
	"-r of 2^31 CPUs"
edit header.dat 'substr($_, 31, 8) = "\xff" x 8'
says "byte 38: longer than it can be $damaged" "$tmp/header.dat"
edit behind.dat 'substr($_, $end + 10, 8) = pack("Q", 1 << 62)'
like "$("$kvmstat" -r "$tmp/behind.dat" 2>&1)" "byte [0-9]+: sub-buffers past the end of the file, or twice" \
	"-r of sub-buffers that are not there"
edit twice.dat 'substr($_, $end + 26, 16) = substr($_, $end + 10, 16); substr($_, 300000) = ""'
like "$("$kvmstat" -r "$tmp/twice.dat" 2>&1)" "byte [0-9]+: sub-buffers past the end of the file, or twice" \
	"-r of CPUs that share sub-buffers"
edit guest.dat 's/(guest\0.{8})..../$1\xff\xff\xff\x7f/s'
like "$("$kvmstat" -r "$tmp/guest.dat" 2>&1)" "byte [0-9]+: more than its option can have" "-r of 2^31 threads"

# reports_each FILE: that -r of it reports each exit, however many guests, vCPUs and threads it tells of
reports_each() {
	"$kvmstat" -H -r "$tmp/$1" >"$tmp/out" 2>"$tmp/err"
	is "$?$(cat "$tmp/err") $(awk '{ n += $3 } END { print n }' "$tmp/out")" "0 408" "-r of $1: each exit counts"
}
with_options many.dat 'join "", map { my $from = $_;
	option(13, "x\0" . pack("QL", 700, 70000) . join "", map { pack("LL", $from + $_, $from + $_) } 1 .. 70000)
	} 0, 70000'
reports_each many.dat
with_options guests.dat 'join "", map { option(13, "x\0" . pack("QLLL", $_, 1, 0xffffffff, 0)) } 1 .. 131073'
reports_each guests.dat
with_options again.dat '/guest\0.{12}(.{8})/s or die; my (undef, $tid) = unpack("LL", $1);
	join "", map { option(13, "x\0" . pack("QLLL", $$_[0], 1, $$_[1], $tid)) } [700, 0], [701, 5]'
is "$("$kvmstat" -H -r "$tmp/again.dat" | cut -f1-3)" "$(printf '%s\t%s\t%s\n' 268 0 0 268 1 206 700 0 202 701 5 0)" \
	"-r: a thread id of two guests is that of one, with its own vCPU"
with_options both.dat '/guest\0.{12}(.{8})/s or die; my (undef, $tid) = unpack("LL", $1);
	option(13, "x\0" . pack("QLLLLL", 700, 2, 0, $tid, 5, $tid))'
is "$("$kvmstat" -H -r "$tmp/both.dat" | cut -f1-3)" "$(printf '%s\t%s\t%s\n' 268 0 0 268 1 206 700 0 0 700 5 0 \
	700 '?' 202)" "-r: what a thread did that ran two vCPUs is in neither's row"
edit page.dat 'substr($_, 73728 + 8, 4) = pack("L", 0xfffff)'
says "CPU 0: a sub-buffer that is larger than it can be $damaged" "$tmp/page.dat"
edit event.dat 'substr($_, 73728 + 16, 4) = pack("L", 0); substr($_, 73728 + 20, 4) = pack("L", 1)'
says "CPU 0: a sub-buffer that makes no sense $damaged" "$tmp/event.dat"
edit future.dat 'substr($_, 73728, 8) = "\xff" x 8'
says "CPU 0: a time stamp that cannot be $damaged" "$tmp/future.dat"
edit late.dat 'substr($_, 286720, 8) = pack("Q", 1 << 62)'
says "no event for more than 1000000 intervals (give a longer one)" "$tmp/late.dat" 1
edit tsc.dat 's/\[local\] global/[x86-tsc] loca/'
says "its trace clock, x86-tsc, does not tell nanoseconds (leave interval, -e and -T out)" "$tmp/tsc.dat" 1
is "$("$kvmstat" -H -r "$tmp/tsc.dat")" "$("$kvmstat" -H -r "$captures/svm-6.1-mix2.dat")" \
	"without an interval its counts are right"
printf '%s' $'name: \e[31m' >"$tmp/"$'esc\e[31m'
is "$("$kvmstat" -r "$tmp/"$'esc\e[31m' 2>&1)" "kvmstat: $tmp/esc\\x1b[31m: not a recording of trace-cmd or kvmstat" \
	"no control byte of a path reaches the terminal"

# Cut anywhere, and with bytes changed: a report or one line, in time and in little memory.
cat >"$tmp/damage.pl" <<'END'
use strict;
use warnings;
my ($kvmstat, $dir, $rounds, @files) = @ARGV;
my ($bad, %seen) = (0);
srand(1);
for my $round (1 .. $rounds) {
	local $/;
	open(my $in, '<:raw', $files[rand @files]) or die;
	my $bytes = <$in>;
	my $header = index($bytes, 'flyrecord') + 42;
	if ($round % 3 == 0) {
		$bytes = substr($bytes, 0, rand($round % 2 ? $header : length $bytes));
	} else {
		my $limit = $round % 3 == 1 ? $header : length $bytes;
		substr($bytes, rand $limit, 1) = chr((0, 1, 127, 128, 255, rand 256)[rand 6]) for 0 .. rand 6;
	}
	open(my $out, '>:raw', "$dir/damaged.dat") or die;
	print $out $bytes;
	close($out);
	my $interval = ('', '', '0.01', '1')[rand 4];
	my $child = fork() // die;
	if ($child == 0) {
		alarm(60);
		open(STDOUT, '>', '/dev/null') && open(STDERR, '>', "$dir/damaged.err") or die;
		exec($kvmstat, '-H', '-r', "$dir/damaged.dat", $interval eq '' ? () : $interval) or die;
	}
	waitpid($child, 0);
	my $status = $?;
	open(my $err, '<', "$dir/damaged.err") or die;
	my $lines = () = <$err> =~ /^kvmstat: /mg;
	$seen{$status >> 8}++;
	next if $status == 0 || $status == 3 << 8 || ($status == 1 << 8 && $lines >= 1);
	print "# round $round: status $status, $lines lines\n";
	$bad++;
}
print "# ", join(', ', map { "status $_: $seen{$_}" } sort keys %seen), "\n";
exit($bad != 0 || !$seen{0} || !$seen{1});
END
perl "$tmp/damage.pl" "$kvmstat" "$tmp" 600 "$captures"/*.dat
ok $? "-r of 600 damaged recordings: a report, or an error"

done_testing
