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
