#!/usr/bin/env bash
# make demo shows something worth seeing, and ends with 0, wherever it is run.
. "$(dirname "$0")/lib.sh"
chmod 755 "$tmp"

# A tree of its own, which each of its users may write to.
tree=$tmp/tree
mkdir -p "$tree/tests/helpers" "$tree/tests/captures"
cp "$top"/{Makefile,kvmstat.c} "$tree"
cp "$here/demo" "$tree/tests"
cp "$here"/helpers/*.[ch] "$tree/tests/helpers"
cp "$here"/captures/*.dat "$tree/tests/captures"
cp "$kvmstat" "$tree/kvmstat"
chmod -R a+rwX "$tree"

# demo WHERE COMMAND...: runs make demo by COMMAND; sets out
kinds="busy idle spins starved still"
demo() {
	out=$("${@:2}" make --no-print-directory -C "$tree" demo 2>&1 </dev/null)
	is $? 0 "$1: status 0"
	is "$(sed -n "s/^  \(${kinds// /\\|}\) .*/\1/p" <<<"$out" | xargs)" "$kinds" \
		"a sentence for each kind of row"
}

# recordings REGEX: that out has those of both hosts, and says by REGEX what is missing
recordings() {
	for row in '778    [01] \| npf ' '778    [01] \| +[0-9]+ :' '717    [01] \| EPT_MISCONFIG ' '717    [01] \| +[0-9]+ :'; do
		like "$out" "^ +$row" "rows of a recording: $row"
	done
	like "$(tail -n 1 <<<"$out")" "^A live host needs .*($1)" "and what is missing for a live host"
}

# Places without a live host.
plain=() private=(unshare --user --map-root-user --mount --pid --fork)
if [ "$(id -u)" -eq 0 ]; then
	plain=(setpriv --reuid 65534 --regid 65534 --clear-groups)
	private=(unshare --mount --pid --fork)
fi
demo "a plain user" "${plain[@]}"
recordings "run as root"
# in_private COMMANDS COMMAND...: COMMAND in name spaces of its own, after COMMANDS
in_private() {
	# shellcheck disable=SC2016 # the inner shell's
	"${private[@]}" bash -ec "$1"'; exec "$@"' bash "${@:2}"
}
if in_private : true 2>/dev/null; then
	demo "a container without capabilities, tracefs and debugfs" in_private "mount -t tmpfs nodev /sys" \
		setpriv --bounding-set=-all --inh-caps=-all
	recordings "name space: not the host's"
else
	skip_check "needs the right to make name spaces" "a container"
fi
if [ "$(id -u)" -ne 0 ]; then
	skip_check "needs root" "root without KVM"
elif ! has_device /dev/kvm; then
	demo "root without KVM" env
	recordings "kvm"
elif in_private : true 2>/dev/null; then
	demo "root without its device" unshare --mount bash -ec 'mount -t tmpfs nodev /dev
		mknod -m 666 /dev/null c 1 3; exec "$@"' bash
	recordings "/dev/kvm"
fi

# With KVM.
why=
if [ "$(id -u)" -ne 0 ]; then
	why="needs root"
elif ! has_device /dev/kvm; then
	why="needs /dev/kvm"
else
	why=$(CI='' LEFT_OUT='' && alone | sed 's/.*SKIP //')
fi
if [ -n "$why" ]; then
	skip_check "$why" "root with KVM"
	done_testing
fi
demo "no guest" env
for row in 'busy [1-9][0-9]{2,} 0 [1-9][0-9]* [1-9][0-9]*' 'idle [0-9]+ [1-9][0-9]* 0 0' 'spins [0-9]+ 0 0 0'; do
	like "$(awk '/ pid vcpu \| exits/ { usual = 1 } / pid vcpu \| vmexit/ { usual = 0 }
		usual && $3 == "|" { print $NF, $4, $6, $9, $10 }' <<<"$out")" "^$row$" "its name, exits, haltx, iox and mmiox: $row"
done
is "$(CI='' LEFT_OUT='' && alone)" "" "its guests end with it"

# A busy host: many vCPUs, guests that come and go, and a program that sets kvmstat's tracing off,
# which gives a warning.
start_guest many -P -v 500 -N -name many
start come bash -c 'while :; do "$0" -n 20 -l oh; done' "$guest"
start disturb unshare --mount bash -c 'mount -t tracefs nodev /sys/kernel/tracing
	while :; do
		for file in /sys/kernel/tracing/instances/kvmstat.*/tracing_on; do
			if [ -e "$file" ]; then echo 0 >"$file"; fi
		done
		sleep 0.3
	done'
demo "a busy host" env
like "$out" "changed or read by another program" "which has warnings"
is "$(awk '/ pid vcpu / { tables++; rows = 0 } $3 == "|" && $2 ~ /^[0-9?]+$/ && ++rows > 20
	END { if (tables < 3) print "tables: " tables + 0 }' <<<"$out")" "" "and tables, none of more than 20 rows"
like "$out" "^ *[0-9]+ +[0-9]+ \|.* many$" "of its guests"
done_testing
