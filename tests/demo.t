#!/usr/bin/env bash
# make demo shows something worth seeing, and ends with 0, also where no host can be reported.
. "$(dirname "$0")/lib.sh"
. "$here/helpers/demo.sh"

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

done_testing
