#!/usr/bin/env bash
# What kvmstat may do: little, once it is set up; and that is enough.
. "$(dirname "$0")/lib.sh"
live_host
alone
needs pgrep strace
# A node that all users may open, in the test's own mount name space.
mknod -m 666 "$tmp/kvm" c "0x$(stat -c %t /dev/kvm)" "0x$(stat -c %T /dev/kvm)"
mount --bind "$tmp/kvm" /dev/kvm

# capabilities PID: those in force
capabilities() {
	awk '/^CapEff/ { print $2 }' "/proc/$1/status"
}

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
is "$(capabilities "$kvm")" 0000000000080022 \
	"only CAP_DAC_OVERRIDE, CAP_KILL and CAP_SYS_PTRACE are left"
is "$(capabilities "$(pgrep -P "$kvm")")" 0000000000000002 \
	"and CAP_DAC_OVERRIDE to the process that removes the instance"
end "$other"
start again setpriv --reuid nobody --regid nogroup --clear-groups --inh-caps=-all "$tmp/guest" \
	-n 300 -l oh -w -N -name guest=again
again=$pid
until_true 10 test -s "$tmp/again.out"
sleep 0.4
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

# In a sticky directory, only who has CAP_FOWNER may replace somebody else's file.
mkdir -m 1777 "$tmp/sticky"
chown nobody "$tmp/sticky"
echo old >"$tmp/sticky/web.dat"
chown daemon "$tmp/sticky/web.dat"
"$kvmstat" -w "$tmp/sticky/web.dat" 0.1 1 >/dev/null 2>"$tmp/err"
is "$?$(grep -v 'no virtual machine' "$tmp/err")" 0 "-w replaces another user's file in a sticky directory"
"$kvmstat" -r "$tmp/sticky/web.dat" >/dev/null 2>&1
is $? 0 "by a recording"
strace -qq -e trace=capset -o "$tmp/trace" "$kvmstat" -r "$here/captures/vmx-6.1-mix2.dat" >/dev/null
like "$(cat "$tmp/trace")" 'effective=0, permitted=0, inheritable=0}\) = 0' "-r needs none"

done_testing
