#!/usr/bin/env bash
# What kvmstat may do: little, once it is set up; and that is enough.
. "$(dirname "$0")/lib.sh"
live_host
alone
needs pgrep strace
# A node that all users may open, in the test's own mount name space.
mknod -m 666 "$tmp/kvm" c "0x$(stat -c %t /dev/kvm)" "0x$(stat -c %T /dev/kvm)"
mount --bind "$tmp/kvm" /dev/kvm

# rights PID: its capabilities: those in force, those that it may have in force, those that a program
# could give it; and whether one could
rights() {
	awk '/^(CapEff|CapPrm|CapBnd|NoNewPrivs)/ { print $2 }' "/proc/$1/status" | xargs
}

# files PID: what its descriptors are
files() {
	find "/proc/$1/fd" -type l -printf '%l\n' | sed 's/:.*//; s,.*/instances$,instances,' | sort | xargs
}
none=0000000000000000

chmod 755 "$tmp"
cp "$guest" "$tmp/guest"
start other setpriv --reuid nobody --regid nogroup --clear-groups --inh-caps=-all "$tmp/guest" \
	-n 300 -l oh -w -N -name guest=other
other=$pid
until_true 10 test -s "$tmp/other.out"
start_kvmstat late -Hn 0.1
kvm=$pid
until_true 5 grep -q "^$other	0	.*other$" "$tmp/late.out"
ok $? "another user's guest has its row, with its name"
is "$(rights "$kvm")" "$none $none $none 1" "no capability is left, and none can be had again"
# CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE
janitor=$(pgrep -P "$kvm")
for child in "$janitor" "$(pgrep -P "$janitor")"; do
	is "$(rights "$child")" "0000000000080004 0000000000080004 $none 1" \
		"those to look at other users' processes, to the one that does, and the one that starts it"
done
end "$other"
start again setpriv --reuid nobody --regid nogroup --clear-groups --inh-caps=-all "$tmp/guest" \
	-n 300 -l oh -w -N -name guest=again
again=$pid
until_true 10 test -s "$tmp/again.out"
all_reported late "$(expected oh 300 <"$tmp/again.out")"
is "$(grep "^$again" "$tmp/late.out" | sums /dev/stdin)" "$(expected oh 300 <"$tmp/again.out")" \
	"one that starts later is counted"
like "$(grep "^$again" "$tmp/late.out" | head -n 1)" 'again$' "by its name"
end "$again"
sleep 0.3
lines=$(wc -l <"$tmp/late.out")
sleep 0.3
is "$(wc -l <"$tmp/late.out")" "$lines" "and has no row when it has ended"
end "$kvm"
is "$(ls "$instances" | grep -c "kvmstat.$kvm")" 0 "the instance is removed without CAP_SYS_ADMIN"

# What the two other processes keep open, whatever there is.
mkdir -p "$tmp/own/mmv" "$tmp/others/mmv"
exec {file}<"$tmp/guest" # as others that start kvmstat may have some
PCP_TMP_DIR=$tmp/own start_kvmstat all -m -n -w "$tmp/own/web.dat" 0.1
kvm=$pid
start_guest more -P
until_true 5 grep -q "$pid" "$tmp/all.out"
end "$pid"
janitor=$(pgrep -P "$kvm")
observer=$(pgrep -P "$janitor")
is "$(files "$janitor")" "/ instances pipe socket" \
	"the process that removes the instance has that directory, a pipe, and what the other needs open"
is "$(files "$observer")" "/ socket" "the one that looks at processes procfs and a socket"
is "$(cat "/proc/$janitor/maps" "/proc/$observer/maps" | grep -c mmv)" 0 \
	"neither has the file of -m in memory"
is "$(rights "$kvm")" "$none $none $none 1" "-m and -w need none in one's own directories"
end "$kvm"
chown nobody "$tmp/others" "$tmp/others/mmv"
start_guest there -P
there=$pid
PCP_TMP_DIR=$tmp/others start_kvmstat theirs -m 0.1
kvm=$pid
# CAP_DAC_OVERRIDE
is "$(rights "$kvm")" "0000000000000002 0000000000000002 $none 1" "-m needs one in another user's directory"
start_guest more2 -P
until_true 5 grep -q "$pid/0" "$tmp/others/mmv/kvmstat"
replaced=$?
end "$pid"
end "$there"
end "$kvm"
but_late "$tmp/theirs.err"
is "$replaced$(grep -v 'no virtual machine' "$tmp/theirs.err")" 0 "and can replace its file there"
start_kvmstat theirs2 -w "$tmp/others/web.dat" 0.1
kvm=$pid
is "$(rights "$kvm")" "0000000000000002 0000000000000002 $none 1" "and so does -w"
end "$kvm"
"$kvmstat" -r "$tmp/others/web.dat" >/dev/null 2>&1
is $? 0 "which can make its recording there"

# In a sticky directory, only who has CAP_FOWNER may replace somebody else's file.
mkdir -m 1777 "$tmp/sticky"
chown nobody "$tmp/sticky"
echo old >"$tmp/sticky/web.dat"
chown daemon "$tmp/sticky/web.dat"
"$kvmstat" -w "$tmp/sticky/web.dat" 0.1 1 >/dev/null 2>"$tmp/err"
is "$?$(grep -v 'no virtual machine' "$tmp/err")" 0 "-w replaces another user's file in a sticky directory"
"$kvmstat" -r "$tmp/sticky/web.dat" >/dev/null 2>&1
is $? 0 "by a recording"

# -r: none, from before the first byte of the recording is read, and for good.
install -m 600 "$here/captures/vmx-6.1-mix2.dat" "$tmp/own.dat"
report=$'700\t0\t721\n700\t1\t723'
strace -qq -e trace=openat,pread64,prctl,setgroups,setresgid,setresuid,capset -o "$tmp/trace" \
	"$kvmstat" -H -r "$tmp/own.dat" | cut -f1-3 >"$tmp/out"
is "$(cat "$tmp/out")" "$report" "-r of a file that only root can read"
is "$(sed -n '/own[.]dat/,$ s/^\([a-z0-9]*\)(.*/\1/p' "$tmp/trace" | uniq | head -n 8 | xargs)" \
	"openat prctl setgroups setresgid setresuid prctl capset pread64" "it is opened, rights are dropped, and it is read"

# status PID: what tells of its rights in /proc/PID/status, each once
status() {
	awk '/^(Uid|Gid|Groups|NoNewPrivs|Cap...):/ { print $1, $2, $3, $4, $5 }' "/proc/$1/status" | xargs
}
none='CapInh: 0000000000000000 CapPrm: 0000000000000000 CapEff: 0000000000000000'
none="$none CapBnd: 0000000000000000 CapAmb: 0000000000000000 NoNewPrivs: 1"
mkfifo "$tmp/full"
exec {full}<>"$tmp/full"
dd if=/dev/zero bs=4096 oflag=nonblock >&"$full" 2>/dev/null

# waits PID: that it is kvmstat, and sleeps
waits() {
	[ "$(sed -n 's/^\(Name\|State\):.\([a-zS]*\).*/\2/p' "/proc/$1/status" | xargs)" = "kvmstat S" ]
}

# start_reading [COMMAND...]: kvmstat -r, by COMMAND, until it waits for the reader of its report
start_reading() {
	"$@" "$tmp/kvmstat" -r "$tmp/own.dat" >&"$full" 2>"$tmp/err" &
	kvm=$!
	children+=("$kvm")
	until_true 5 waits "$kvm"
}
cp "$kvmstat" "$tmp/kvmstat"
start_reading
is "$(status "$kvm")" "Uid: 65534 65534 65534 65534 Gid: 65534 65534 65534 65534 Groups: $none" \
	"root is nobody then, without groups, capabilities and ways to more"
end "$kvm"
chmod 644 "$tmp/own.dat"
start_reading setpriv --reuid 1 --regid 1 --clear-groups --inh-caps=-all --bounding-set=-all
is "$(status "$kvm")" "Uid: 1 1 1 1 Gid: 1 1 1 1 Groups: $none" "and another user who he is"
end "$kvm"
if can_split_users; then
	is "$(unshare --user --map-root-user "$kvmstat" -H -r "$tmp/own.dat" | cut -f1-3)" "$report" \
		"where there is no nobody, it works, too"
else
	skip_check "needs user name spaces" "where there is no nobody, it works, too"
fi

done_testing
