# The examples of README.md and kvmstat.1 for docs.t and examples.t, in bash, after lib.sh: in
# $tmp/commands, a line each.
# shellcheck disable=SC2154 # lib.sh sets here, kvmstat, tmp, top

mkdir "$tmp/bin"
# Only the times are shorter: an interval of a second or more is 0.3, and 3 reports are enough.
cat >"$tmp/bin/kvmstat" <<-END
	#!/bin/bash
	args=()
	operand=0
	for arg; do
	    case \$arg in
	    -*|d|u) ;;
	    *) [[ \$last = -[prwekl] ]] || case \$((operand += 1)) in
	        1) [[ \$arg = *.* ]] || arg=0.3 ;;
	        2) [[ \$arg -lt 3 ]] || arg=3 ;;
	        esac ;;
	    esac
	    args+=("\$arg")
	    last=\$arg
	done
	[[ \$operand != 1 || " \${args[*]}" = *" -r "* ]] || args+=(3)
	exec "$kvmstat" "\${args[@]}"
END
chmod +x "$tmp/bin/kvmstat"
PATH=$tmp/bin:$PATH
cd "$tmp" || exit 1
ln -s "$here" tests
{
	examples <"$top/README.md"
	mandoc -Tascii "$top/kvmstat.1" | col -bx | examples
} | awk '!seen[$0]++' >"$tmp/commands"

# offline COMMAND: that it reports a capture, or what trace-cmd converts: it needs no KVM
offline() {
	case $1 in
	*tests/captures* | 'kvmstat -r trace.dat'* | 'trace-cmd convert'*) ;;
	*) return 1 ;;
	esac
}

# run COMMAND: its output and status; nohup's output is in its file
run() {
	local status
	rm -f kvmstat.log
	timeout -s INT -k 1 60 bash -c "$1"$'\nstatus=$?; wait; exit $status' 2>&1
	status=$?
	[ ! -e kvmstat.log ] || cat kvmstat.log
	return "$status"
}
