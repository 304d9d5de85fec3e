#!/usr/bin/env bash
# Recordings: -w while reporting, and -r of what -w recorded.
. "$(dirname "$0")/lib.sh"
live_host
alone
needs strace trace-cmd

own_name

# What trace-cmd shows of a recording, with stamps in nanoseconds.
events() {
	trace-cmd report --nodate -t -q -i "$1" 2>/dev/null
}

# -w: a host with guests that come, go, do nothing, and have strange names.
start_guest idle -P -N -name $'id\\le\e[1m'
idle=$pid
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
	status=$?
	# A slow machine has no time for a whole look now and then: a line says so, and status 3.
	[ "$status" -ne 3 ] || ! grep -q ': no time to look' "$tmp/live$try.err" || status=0
	but_late "$tmp/live$try.err"
	is "$status$(cat "$tmp/live$try.err")" 0 "-w: the live report is as without it"
	same_rows 2 4 "$("$kvmstat" -H -n -T u -r "$tmp/w.dat" 0.125)" "$(cat "$tmp/live$try.out")" \
		"-r of what -w wrote: the same rows as live"
done
is "$(cut -f2-12 "$tmp/live3.out" >"$tmp/rows"; sums "$tmp/rows")" \
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
for signal in INT TERM HUP QUIT ALRM USR1 XCPU; do
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
is "$(ls -A "$tmp/dir" | xargs)" "ALRM.dat HUP.dat INT.dat QUIT.dat TERM.dat USR1.dat XCPU.dat pipe.dat stdout.dat" \
	"nothing else is left"
is "$(stat -c %a "$tmp/dir/INT.dat")" 600 "others can neither read nor write a recording"

# cut_off NAME: that -r of what was recorded to $tmp/NAME.dat says that it was cut, has status 3, and
# the rows of the live report in $tmp/NAME.out
cut_off() {
	"$kvmstat" -H -T u -r "$tmp/$1.dat" 0.25 >"$tmp/again" 2>"$tmp/err"
	is "$? $(sed 's/ [^ ]*$//' "$tmp/err")" \
		"3 kvmstat: $tmp/$1.dat: it was cut, or is still being made: this is what it has up to" "one line says so, status 3"
	same_rows 2 4 "$(head -n "$(wc -l <"$tmp/$1.out")" "$tmp/again")" "$(cat "$tmp/$1.out")" "and all that was reported is there"
}
# reported NAME: that ten more lines were reported
reported() {
	[ "$(wc -l <"$tmp/$1.out")" -ge $(($(cat "$tmp/$1.lines") + 10)) ]
}

# SIGKILL leaves all that was reported; so does each moment before.
start_kvmstat killed -H -T u -w "$tmp/killed.dat" 0.25
kvm=$pid
echo 0 >"$tmp/killed.lines"
until_true 10 reported killed
"$kvmstat" -H -r "$tmp/killed.dat" >"$tmp/out" 2>"$tmp/err"
is "$?$(grep -c 'still being made' "$tmp/err")$(wc -l <"$tmp/out")" 313 "-r of a recording that is being made: what it has"
wc -l <"$tmp/killed.out" >"$tmp/killed.lines"
until_true 10 reported killed
end "$kvm" KILL
cut_off killed
"$kvmstat" -H -r "$tmp/killed.dat" -w "$tmp/whole.dat" >"$tmp/out" 2>/dev/null
is "$?$("$kvmstat" -H -r "$tmp/whole.dat")" "3$(cat "$tmp/out")" "-r of it with -w makes a whole one"
[ "$(events "$tmp/whole.dat" | grep -c ': kvm_')" -gt 10 ]
is "$?$(trace-cmd report -i "$tmp/whole.dat" 2>&1 >/dev/null)" 0 "which trace-cmd reads"
"$kvmstat" -r "$tmp/killed.dat" -w "$tmp/whole.dat" >/dev/null 2>"$tmp/err"
is "$?$(cat "$tmp/err")" "1kvmstat: $tmp/whole.dat: File exists (give -w a new file)" "but none in place of another file"
# Cut within what was written last, as by a power cut: the report before is there.
size=$(stat -c %s "$tmp/killed.dat")
for less in 1 4096 8192 20000; do
	head -c $((size - less)) "$tmp/killed.dat" >"$tmp/less.dat"
	"$kvmstat" -H -T u -r "$tmp/less.dat" 0.25 >"$tmp/out" 2>"$tmp/err"
	is "$?$(grep -c 'it was cut' "$tmp/err")" 31 "$less bytes less are reported, too"
	[ "$(wc -l <"$tmp/out")" -gt 10 ]
	is "$?$(diff <(head -n 10 "$tmp/out") <(head -n 10 "$tmp/again"))" 0 "with what came before"
done
perl -0777 -pe 'my $at = rindex($_, "kvmstat\n"); substr($_, $at - 4096, 4096) = "\0" x 4096' \
	"$tmp/killed.dat" >"$tmp/holes.dat"
"$kvmstat" -H -r "$tmp/holes.dat" >"$tmp/out" 2>"$tmp/err"
is "$?$(grep -c 'it was cut' "$tmp/err")$(wc -l <"$tmp/out")" 313 "and so is one in which events did not get to the disk"
strace -qq -o /dev/null -e trace=copy_file_range -e inject=copy_file_range:signal=KILL \
	"$kvmstat" -H -T u -w "$tmp/copied.dat" 0.25 8 >"$tmp/copied.out" 2>/dev/null
is $? 137 "-w, killed while it makes the whole file"
cut_off copied
rm "$tmp"/.kvmstat.*
install -m 640 /dev/null "$tmp/dir/group.dat"
"$kvmstat" -w "$tmp/dir/group.dat" 0.1 1 >/dev/null
is "$(stat -c %a "$tmp/dir/group.dat")$("$kvmstat" -H -r "$tmp/dir/group.dat" | wc -l)" 6003 \
	"also in place of a file that they could read"

# It is put on the disk: once a second, and before it gets its name in the end.
strace -qq -e signal=none -e trace=io_submit,fsync,/renameat -o "$tmp/trace" "$kvmstat" -w "$tmp/dir/group.dat" 0.1 35 >/dev/null
is "$(sed 's/(.*) *= /:/' "$tmp/trace" | uniq | xargs)" "io_submit:1 renameat:0 io_submit:1 fsync:0 renameat:0" \
	"it is put on the disk while it is made, and fsync() comes before rename()"
[ "$(grep -c io_submit "$tmp/trace")" -le 6 ]
ok $? "once a second, not at each report"
strace -qq -o /dev/null -e trace=fsync -e inject=fsync:error=EIO "$kvmstat" -w "$tmp/dir/group.dat" 0.1 1 \
	>/dev/null 2>"$tmp/err"
like "$? $(cat "$tmp/err")" "^3 kvmstat: $tmp/dir/group.dat: Input/output error .recorded, for kvmstat -r" \
	"fsync() fails in the end: one line, status 3"
is "$("$kvmstat" -H -r "$tmp/dir/group.dat" 2>/dev/null | wc -l)" 3 "and -r has it all"
strace -qq -o /dev/null -e trace=io_setup,fdatasync -e inject=io_setup:error=ENOSYS -e inject=fdatasync:error=EIO:when=2+ \
	"$kvmstat" -H -w "$tmp/dir/group.dat" 0.5 8 >"$tmp/out" 2>"$tmp/err"
like "$?$(wc -l <"$tmp/out") $(grep -v 'no answer in time' "$tmp/err")" "^324 kvmstat: $tmp/dir/group.dat: Input/output error .recorded up to [^ ]*; the reports go on" \
	"the disk fails: the recording ends, the reports go on"

# Several tables: -r reports each of them, and the usual one.
"$kvmstat" -H -e vmexit,ioport -w "$tmp/tables.dat" 1 2 >"$tmp/out"
for table in vmexit ioport; do
	is "$("$kvmstat" -H -e $table -r "$tmp/tables.dat" | cut -f 1,2 | sort -u | wc -l)" 3 "-w -e vmexit,ioport: $table"
done
like "$(cut -f 3 "$tmp/out" | sort -u | xargs)" "^[^0]*$" "and the first one is reported"
"$kvmstat" -H -e all -w "$tmp/all.dat" 1 2 >"$tmp/out"
is "$(sums "$tmp/out")" "$("$kvmstat" -H -r "$tmp/all.dat" | sort -n -k1,1 -k2,2)" "-w -e all reports the usual table, and records it"
for table in vmexit mmio ioport msr cpuid hypercall; do
	is "$("$kvmstat" -H -e $table -r "$tmp/all.dat" | cut -f 1,2 | sort -u | wc -l)" 3 "and has $table"
done

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
mkfifo "$tmp/private/fifo"
mknod "$tmp/private/null" c 1 3
chmod 755 "$tmp"
not_regular='not a regular file (give -w another name)'
refused "a link" "$not_regular" "$tmp/open/link"
refused "one to nothing" "$not_regular" "$tmp/open/dangling"
is "$(cat "$tmp/precious")" precious "what a link led to is as it was"
refused "a FIFO" "$not_regular" "$tmp/private/fifo"
refused "a device" "$not_regular" "$tmp/private/null"
refused "a directory" "$not_regular" "$tmp/private/dir"
refused "a directory" "$not_regular" "$tmp/private/"
refused "a directory that is not there" \
	"No such file or directory (nothing is recorded; give -w a file that can be written)" "$tmp/no/x.dat"
is "$(ls -A "$tmp/open" "$tmp/private" | xargs)" \
	"$tmp/open: dangling link parent $tmp/private: dir fifo null" "and left nothing there"
(cd "$tmp/private/dir" && "$kvmstat" -w ../over.dat 0.1 1 && "$kvmstat" -w ./..//over.dat 0.1 1) >/dev/null
is "$?$("$kvmstat" -H -r "$tmp/private/over.dat" | wc -l)" 03 "a recording takes an older one's place"
longest=$tmp/private/dir/$(printf 'x%.0s' {1..255})
"$kvmstat" -w "$longest" 0.1 1 >/dev/null
is "$?$("$kvmstat" -H -r "$longest" | wc -l)" 03 "a name of 255 bytes"
refused "a longer one" "File name too long (nothing is recorded; give -w a file that can be written)" "${longest}x"

# A full disk ends the recording, not the report.
mkdir "$tmp/disk"
mount -t tmpfs -o size=1024k nodev "$tmp/disk"

# ends WHAT WHY FILE COMMAND...: that its recording ends so, with a line and status 3; that the reports go on,
# and that -r has what was recorded up to then
ends() {
	local what=$1 why=$2 file=$3 status
	shift 3
	"$@" >"$tmp/out" 2>"$tmp/err"
	status=$?
	but_late "$tmp/err"
	like "$status $(cat "$tmp/err")" "^3 kvmstat: $file: $why .recorded up to [^ ]*; the reports go on; give -w a place with more room" \
		"$what: one line, status 3"
	is "$(wc -l <"$tmp/err") $(cut -f 2,3 "$tmp/out" | grep -cx "$idle	0")" "1 60" "and all reports"
	"$kvmstat" -H -T u -r "$file" 0.1 >"$tmp/again" 2>"$tmp/err"
	is "$?$(cat "$tmp/err")" 0 "and a whole recording"
	events "$file" | grep -q kvm_
	ok $? "which trace-cmd reads, too"
	same_rows 2 4 "$(sed '$d' "$tmp/again" | head -n 30)" "$(head -n 30 "$tmp/out")" "with the rows up to then"
}
record=("$kvmstat" -H -T u -e all -w)
ends "a full disk" 'No space left on device' "$tmp/disk/x.dat" "${record[@]}" "$tmp/disk/x.dat" 0.1 60
is "$(ls -A "$tmp/disk")" x.dat "and nothing else"
rm "$tmp/disk/x.dat"
(ulimit -f 1000 && ends "a limit of file sizes" 'File too large' "$tmp/large.dat" "${record[@]}" "$tmp/large.dat" 0.1 60
	echo "$tests $failed" >"$tmp/counted")
read -r tests failed <"$tmp/counted"
strace -qq -o /dev/null -e trace=copy_file_range -e inject=copy_file_range:error=ENOSPC \
	"$kvmstat" -H -w "$tmp/disk/x.dat" 0.1 2 >/dev/null 2>"$tmp/err"
like "$? $(cat "$tmp/err")" "^3 kvmstat: $tmp/disk/x.dat: No space left on device .recorded, for kvmstat -r" \
	"no room at all for the whole file: one line, status 3"
is "$(ls -A "$tmp/disk")$("$kvmstat" -H -r "$tmp/disk/x.dat" 2>/dev/null | wc -l)" x.dat3 "the recording is there for -r, and nothing else"
strace -qq -o /dev/null -e trace=/renameat -e inject=/renameat:error=EACCES:when=1 \
	"$kvmstat" -H -w "$tmp/disk/y.dat" 0.1 2 >/dev/null 2>"$tmp/err"
is "$? $(cat "$tmp/err")$(ls -A "$tmp/disk")" "1 kvmstat: $tmp/disk/y.dat: Permission denied \
(nothing is recorded; give -w a file that can be written)x.dat" "no right to the name: status 1, and nothing is left"
# It needs the room of the recording, not twice that.
mount -o remount,size=64m "$tmp/disk"
rm "$tmp/disk"/*
has_size() {
	[ "$(stat -c %s "$1")" -ge "$2" ]
}
start_kvmstat roomy -H -w "$tmp/disk/a.dat" 0.5
kvm=$pid
until_true 20 has_size "$tmp/disk/a.dat" 500000
end "$steady"
next_reports roomy "$idle"
size=$(stat -c %s "$tmp/disk/a.dat")
mount -o remount,size=$((($(df --output=used "$tmp/disk" | tail -n 1)) + size / 2048))k "$tmp/disk"
end "$kvm"
is "$status$("$kvmstat" -H -r "$tmp/disk/a.dat" | sort -n -k1,1 -k2,2)" "143$(sums "$tmp/roomy.out")" \
	"half of the room that the recording takes is enough to complete it"
umount "$tmp/disk"

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
