#!/usr/bin/env bash
# Recordings: -w while reporting, -r of what -w and trace-cmd recorded, and of what lies.
. "$(dirname "$0")/lib.sh"
live_host
alone
needs strace trace-cmd

captures=$here/captures
own_name

# What trace-cmd shows of a recording, with stamps in nanoseconds.
events() {
	trace-cmd report --nodate -t -q -i "$1" 2>/dev/null
}

# -r: captures.  unit.t compares each cell with KVM's own count.

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

# Intervals, against a count of what trace-cmd shows: kvm_exit by interval and thread.
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
is "$("$kvmstat" -H -r "$captures/vmx-6.1-mix2.dat" 0.01 2 | wc -l)" 4 "count ends a recording's reports, too"
first=$(events "$captures/vmx-6.1-mix2.dat" | sed -n 's/.*\] *\([0-9]*\)\.[0-9]*:.*/\1/p' | head -n 1)
[ "$("$kvmstat" -H -T d -r "$captures/vmx-6.1-mix2.dat" | cut -f1 | head -n 1)" -ge "$first" ]
ok $? "-T: where nothing tells the date, the seconds of the recording's clock"
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

# -w: a host with guests that come, go, do nothing, and have strange names.
start_guest idle -P -N -name $'id\\le\e[1m'
start_guest busy -v 2 -n 0 -l omh -s 500 -T -N -name guest=busy
busy=$pid
for try in 1 2 3; do
	start "live$try" "$kvmstat" -H -n -T u -w "$tmp/w.dat" 0.125 16
	live=$pid
	until_true 5 tracing "$live"
	for _ in 1 2 3; do
		"$guest" -v 2 -n 300 -l rmo -s 100 >/dev/null 2>&1
		sleep 0.25
	done
	wait "$live"
	is "$?$(cat "$tmp/live$try.err")" 0 "-w: the live report is as without it"
	same_rows 2 4 "$("$kvmstat" -H -n -T u -r "$tmp/w.dat" 0.125)" "$(cat "$tmp/live$try.out")" \
		"-r of what -w wrote: the same rows as live"
done
is "$(cut -f1-11 "$tmp/live3.out" | cut -f2- >"$tmp/rows"; sums "$tmp/rows")" \
	"$("$kvmstat" -H -r "$tmp/w.dat" | sort -n -k1,1 -k2,2)" "and all of it is their sum"
trace-cmd dump -i "$tmp/w.dat" --options >"$tmp/options" 2>&1
read -r start end < <(sed -n 's/^kvmstat .* from \([0-9]*\) to \([0-9]*\) ns$/\1 \2/p' "$tmp/options")
is "$(events "$tmp/w.dat" | perl -ne '
	$n++ if /\]\s+(\d+)\.(\d{9}): kvm_(userspace_)?exit:/ && "$1$2" >= '"$start"' && "$1$2" < '"$end"'; END { print $n }')" \
	"$("$kvmstat" -H -r "$tmp/w.dat" | awk -F'\t' '{ n += $3 } END { print n }')" \
	"trace-cmd report shows each exit"
is "$(trace-cmd report -i "$tmp/w.dat" 2>&1 >/dev/null)" "" "and complains of nothing"
grep -A4 '^busy \[Guest name\]' "$tmp/options" | sed 's/^ *//' >"$tmp/busy"
is "$(sed -n '2,3p' "$tmp/busy")" "$(printf '0x%X [trace id]\n2 [Guest CPUs]' "$busy")" \
	"trace-cmd dump --options: the guest, its process and its vCPUs"
is "$(sed -n '4,5s/ \[.*//p' "$tmp/busy" | sort)" \
	"$(grep -l 'CPU [01]/KVM' /proc/"$busy"/task/*/comm | while IFS=/ read -r _ _ _ _ tid _; do
		sed "s,CPU \(.*\)/KVM,\1 $tid," "/proc/$busy/task/$tid/comm"; done | sort)" \
	"with the threads that run them"
like "$(cat "$tmp/options")" '\[mono\]' "the trace clock"
like "$(cat "$tmp/options")" "$(uname -r)" "and the host's kernel"

# However it ends, the recording is complete, and nothing else is left.
mkdir "$tmp/dir"
end "$busy"
for signal in INT TERM HUP QUIT ALRM; do
	start_guest "few$signal" -d -w -v 2 -n 3 -l om
	few=$pid few_in=$hold
	start_kvmstat "ended$signal" -w "$tmp/dir/$signal.dat" 60
	kvm=$pid
	sleep 0.3
	echo >&"$few_in"
	until_true 10 test -s "$tmp/few$signal.out"
	end "$kvm" "$signal"
	is "$status" $((128 + $(kill -l $signal))) "-w, SIG$signal: it died of that"
	is "$("$kvmstat" -H -p "$few" -r "$tmp/dir/$signal.dat" | sort -n -k1,1 -k2,2)" \
		"$(expected om 3 <"$tmp/few$signal.out")" "and the recording has all that there was up to then"
	is "$("$kvmstat" -H -r "$tmp/dir/$signal.dat" 0.1 | cut -f1-2 | sort -u | wc -l)" 3 \
		"also the idle guest"
	end "$few"
done
start_guest steady -v 2 -n 0 -l omh -s 500
steady=$pid
"$kvmstat" -w "$tmp/dir/pipe.dat" 0.1 | head -n 2 >/dev/null
is "$("$kvmstat" -H -r "$tmp/dir/pipe.dat" | wc -l)" 3 "the reader of stdout goes: a recording is there"
"$kvmstat" -w "$tmp/dir/stdout.dat" 0.1 >/dev/full 2>/dev/null
is "$?$("$kvmstat" -H -r "$tmp/dir/stdout.dat" | wc -l)" 13 "stdout is full: a recording is there"
start_kvmstat killed -w "$tmp/dir/KILL.dat" 60
sleep 0.2
end "$pid" KILL
{
	strace -qq -o /dev/null -e trace=sendfile -e inject=sendfile:signal=KILL \
		"$kvmstat" -w "$tmp/dir/copied.dat" 0.3 1 >/dev/null
} 2>/dev/null
is $? 137 "-w, killed while it puts the recording together"
is "$(ls -A "$tmp/dir" | xargs)" "ALRM.dat HUP.dat INT.dat QUIT.dat TERM.dat pipe.dat stdout.dat" \
	"SIGKILL leaves no file, and nothing else was left by the others"
is "$(stat -c %a "$tmp/dir/INT.dat")" 600 "others can neither read nor write a recording"
install -m 640 /dev/null "$tmp/dir/group.dat"
(umask 077 && "$kvmstat" -w "$tmp/dir/group.dat" 0.1 1 >/dev/null)
is "$(stat -c %a "$tmp/dir/group.dat")$("$kvmstat" -H -r "$tmp/dir/group.dat" | wc -l)" 6403 \
	"unless it takes the place of one's own file that they can"
install -m 666 -o nobody /dev/null "$tmp/dir/theirs.dat"
"$kvmstat" -w "$tmp/dir/theirs.dat" 0.1 1 >/dev/null
is "$(stat -c %U:%a "$tmp/dir/theirs.dat")" root:600 "not of another's"

# It is on the disk before it gets its name; where that fails, the one before stays.
echo older >"$tmp/dir/group.dat"
strace -qq -e signal=none -e trace=fsync,/renameat -o "$tmp/trace" "$kvmstat" -w "$tmp/dir/group.dat" 0.1 1 >/dev/null
is "$(sed 's/(.*) *= /:/' "$tmp/trace" | xargs)" "fsync:0 renameat:0" "fsync() comes before rename()"
echo older >"$tmp/dir/group.dat"
strace -qq -o /dev/null -e trace=fsync -e inject=fsync:error=EIO "$kvmstat" -w "$tmp/dir/group.dat" 0.1 1 \
	>/dev/null 2>"$tmp/err"
is "$? $(cat "$tmp/err" "$tmp/dir/group.dat")" "1 kvmstat: $tmp/dir/group.dat: Input/output error \
(nothing is recorded; give -w a file that can be written)
older" "fsync() fails: an error, and the one before"

# A quiet host makes a small recording: not a sub-buffer for each event.
end "$steady"
start_guest quiet -n 0 -l h -s 10000
quiet=$pid
"$kvmstat" -w "$tmp/quiet.dat" 1 3 >/dev/null
size=$(stat -c %s "$tmp/quiet.dat")
[ "$size" -lt 150000 ]
ok $? "few events make a small recording ($size bytes, $(events "$tmp/quiet.dat" | wc -l) events)"
end "$quiet"
start_guest steady2 -v 2 -n 0 -l omh -s 500
steady=$pid

# refused WHAT WHY FILE: that -w FILE is refused, and nothing is touched
refused() {
	local what=$1 why=$2 file=$3
	"$kvmstat" -w "$file" 0.1 1 >"$tmp/out" 2>"$tmp/err"
	is "$?$(cat "$tmp/out")$(cat "$tmp/err")" "1kvmstat: $file: $why" "-w refuses $what"
}

echo precious >"$tmp/precious"
mkdir "$tmp/open" "$tmp/private" "$tmp/private/dir"
chmod 1777 "$tmp/open"
chmod 755 "$tmp/private"
ln -s "$tmp/precious" "$tmp/open/link"
ln -s nowhere "$tmp/open/dangling"
ln -s "$tmp/private" "$tmp/open/parent"
ln -s "$tmp/private/linked.dat" "$tmp/private/link"
mkfifo "$tmp/private/fifo"
mknod "$tmp/private/null" c 1 3
others='a symbolic link that others can make (give its target)'
refused "a link in a directory that others can write to" "$others" "$tmp/open/link"
refused "one to nothing" "$others" "$tmp/open/dangling"
refused "one on the way" "$others" "$tmp/open/parent/x.dat"
is "$(cat "$tmp/precious")" precious "what a link led to is as it was"
not_regular='not a regular file (give -w another name)'
refused "a FIFO" "$not_regular" "$tmp/private/fifo"
refused "a device" "$not_regular" "$tmp/private/null"
refused "a directory" "$not_regular" "$tmp/private/dir"
refused "a directory that is not there yet" "$not_regular" "$tmp/private/new/"
refused "a file with a slash behind" "$not_regular" "$tmp/precious/"
refused "a directory that is not there" \
	"No such file or directory (nothing is recorded; give -w a file that can be written)" "$tmp/no/x.dat"
is "$(ls -A "$tmp/open" "$tmp/private" | xargs)" \
	"$tmp/open: dangling link parent $tmp/private: dir fifo link null" "and left nothing there"
"$kvmstat" -w "$tmp/private/link" 0.1 1 >/dev/null
is "$?$(readlink "$tmp/private/link")" "0$tmp/private/linked.dat" "a link in a private directory stays"
is "$("$kvmstat" -H -r "$tmp/private/linked.dat" | wc -l)" 3 "and the recording is where it leads"
(cd "$tmp/private/dir" && "$kvmstat" -w ../over.dat 0.1 1 && "$kvmstat" -w ./..//over.dat 0.1 1) >/dev/null
is "$?$("$kvmstat" -H -r "$tmp/private/over.dat" | wc -l)" 03 "a recording takes an older one's place"
longest=$tmp/private/dir/$(printf 'x%.0s' {1..255})
"$kvmstat" -w "$longest" 0.1 1 >/dev/null
is "$?$("$kvmstat" -H -r "$longest" | wc -l)" 03 "a name of 255 bytes"
refused "a longer one" "File name too long (nothing is recorded; give -w a file that can be written)" "${longest}x"

# Who can write to its directory cannot take its names before, or put a file in its place.
chmod 755 "$tmp"
mkdir -m 777 "$tmp/shared"
start_kvmstat taken -w "$tmp/shared/taken.dat" 0.2 5
for i in {0..99}; do : >"$tmp/shared/.kvmstat.$pid.$i"; done
wait "$pid"
is "$?$("$kvmstat" -H -r "$tmp/shared/taken.dat" | wc -l)" 03 "-w in a directory with files called .kvmstat.PID.N"
cat >"$tmp/swap" <<-'END'
	cd "$1" && rm -f .kvmstat.* && echo ready
	while sleep 0.01; do
	    for name in .kvmstat.*; do
	        [ -e "$name" ] && mv "$name" stolen && echo mine >"$name" && echo swapped
	    done
	done
END
chown nobody "$tmp/shared"
start swap setpriv --reuid nobody --regid nogroup --clear-groups bash "$tmp/swap" "$tmp/shared"
swap=$pid
until_true 5 grep -q ready "$tmp/swap.out"
strace -qq -o /dev/null -e trace=linkat -e inject=linkat:delay_exit=500000 \
	"$kvmstat" -w "$tmp/shared/swapped.dat" 0.2 1 >/dev/null 2>"$tmp/err"
is "$?$(cat "$tmp/err")" 0 "-w where somebody swaps files"
end "$swap"
is "$(grep -c swapped "$tmp/swap.out")$("$kvmstat" -H -r "$tmp/shared/swapped.dat" | wc -l)" 13 \
	"who did it, but not in time"

# A full disk: while recording, and when the recording is put together.
mkdir "$tmp/disk"
mount -t tmpfs -o size=1024k nodev "$tmp/disk"
full='No space left on device (nothing is recorded; give -w a place with more room)'

# fails WHAT LINE ROWS COMMAND...: that it ends so, with at least so many rows, and leaves an older recording
fails() {
	local what=$1 line=$2 rows=$3
	shift 3
	echo older >"$tmp/disk/x.dat"
	"$@" >"$tmp/out" 2>"$tmp/err"
	is "$? $(cat "$tmp/err")" "1 kvmstat: $tmp/disk/x.dat: $line" "$what: status 1, and one error"
	[ "$(wc -l <"$tmp/out")" -ge "$rows" ]
	ok $? "and what was reported before is there"
	is "$(cat "$tmp/disk/x.dat")$(ls -A "$tmp/disk")" olderx.dat "and an older recording, and nothing else"
}
record=("$kvmstat" -H -w "$tmp/disk/x.dat" 0.05)
fails "a full disk" "$full" 3 "${record[@]}" 600
fails "a full disk in the end" "$full" 6 \
	strace -qq -o /dev/null -e trace=sendfile -e inject=sendfile:error=ENOSPC "${record[@]}" 2
rm "$tmp/disk/x.dat"
strace -qq -o /dev/null -e trace=sendfile -e inject=sendfile:error=ENOSPC "${record[@]}" 2 >/dev/null 2>"$tmp/err"
is "$? $(cat "$tmp/err")$(ls -A "$tmp/disk")" "1 kvmstat: $tmp/disk/x.dat: $full" "the same where there was no recording before"
fails "no right to the name" "Permission denied (nothing is recorded; give -w a file that can be written)" 6 \
	strace -qq -o /dev/null -e trace=/renameat -e inject=/renameat:error=EACCES "${record[@]}" 2
(ulimit -f 256 && "$kvmstat" -w "$tmp/large.dat" 0.5 20 >/dev/null 2>"$tmp/err")
is "$? $(cat "$tmp/err")" "1 kvmstat: $tmp/large.dat: File too large (nothing is recorded; give -w a place \
with more room)" "the same for a limit of file sizes"
# It needs the room of the recording, not twice that.
mount -o remount,size=64m "$tmp/disk"
"$kvmstat" -w "$tmp/disk/a.dat" 0.5 4 >/dev/null
mount -o remount,size=$(($(stat -c %s "$tmp/disk/a.dat") / 1024 * 7 / 5))k "$tmp/disk"
rm "$tmp/disk/a.dat"
"$kvmstat" -w "$tmp/disk/a.dat" 0.5 4 >/dev/null
is "$?$("$kvmstat" -H -r "$tmp/disk/a.dat" | wc -l)" 03 "it needs little more room than the recording has"
umount "$tmp/disk"
end "$steady"

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
says "a pipe, and -r has to read at any place (write it to a file first)" "$tmp/private/fifo"
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

# reports_partly FILE: that -r of it reports each exit, says that not all are told apart, and has status 3
reports_partly() {
	"$kvmstat" -H -r "$tmp/$1" >"$tmp/out" 2>"$tmp/err"
	is "$? $(cat "$tmp/err")" "3 kvmstat: $tmp/$1: too many guests, vCPUs or threads: those beyond are in the \
rows ? (record for a shorter time, or with -p)" "-r of $1: not all are told apart"
	is "$(awk '{ n += $3 } END { print n }' "$tmp/out")" 408 "but each exit counts"
}
with_options many.dat 'join "", map { my $from = $_;
	option(13, "x\0" . pack("QL", 700, 70000) . join "", map { pack("LL", $from + $_, $from + $_) } 1 .. 70000)
	} 0, 70000'
reports_partly many.dat
with_options guests.dat 'join "", map { option(13, "x\0" . pack("QLLL", $_, 1, 0xffffffff, 0)) } 1 .. 131073'
reports_partly guests.dat
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
	my $status = system("timeout 60 '$kvmstat' -H -r '$dir/damaged.dat' $interval >/dev/null 2>'$dir/damaged.err'");
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

nothing_left
ok $? "nothing is left"
# On a quiet host few events do not wake kvmstat -w; a guest that is soon gone is seen all the same.
start_kvmstat brief -Hn -w "$tmp/brief.dat" 3 1
kvm=$pid
sleep 1
start_guest soon -n 20 -l o -w -N -name guest=soon
soon=$pid
until_true 5 test -s "$tmp/soon.out"
sleep 0.2
end "$soon"
wait "$kvm"
is "$(grep "^$soon" "$tmp/brief.out" | cut -f 1-3,12)" \
	"$soon	0	$(expected o 20 <"$tmp/soon.out" | cut -f 3)	soon" \
	"-w: a guest that ends within an interval has its vCPU and its name"
# The same of one that was there before, and of which nothing was seen up to then.
start_guest early -d -n 20 -l o -w -N -name guest=early
early=$pid early_in=$hold
start_kvmstat seen -Hn -w "$tmp/seen.dat" 3 1
kvm=$pid
echo >&"$early_in"
until_true 5 test -s "$tmp/early.out"
sleep 1.3
end "$early"
wait "$kvm"
is "$(grep "	early$" "$tmp/seen.out" | cut -f 1-3)" "$early	0	$(expected o 20 <"$tmp/early.out" | cut -f 3)" \
	"-w: and so has one that was there before"

done_testing
