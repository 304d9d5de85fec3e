#!/usr/bin/env bash
# Each system call of a run fails, at each of its occurrences in turn: the right report, or
# one line that says what failed; and nothing is left.  A table of what happened is printed;
# "missed" are runs in which the call was not reached, as they differ.
. "$(dirname "$0")/lib.sh"
live_host
needs pgrep strace

capture=$here/captures/vmx-6.1-mix2irq.dat
# Occurrences of a call that all fail in turn; of those after them, up to 200, each tenth does, and
# then, in what goes through all processes of the host, each two hundredth
first=40
# The program with sanitizers is slower, and calls the same: a sample will do.
case $kvmstat in */sanitized/*) first=1 ;; esac
groups=() nruns=0 running=0
least=$((first == 1 ? 100 : 600)) # runs

# command_of MODE DIR: sets command, to what is run in DIR
command_of() {
	mkdir "$2" "$2/dir"
	ln -s "$kvmstat" "$2/kvmstat"
	echo older >"$2/dir/x.dat"
	case $1 in
	live | janitor) command=("$2/kvmstat" -cn 0.05 2) ;;
	record) command=("$2/kvmstat" -H -n -p "$busy" -w "$2/dir/x.dat" 0.05 2) ;;
	read) command=("$2/kvmstat" -n -r "$capture" 0.2) ;;
	esac
}

# The line that says that the guest's name could not be read: its process's name stands for it.
no_name='^kvmstat: /proc/[0-9]*/cmdline: .* (the process.s name stands for'

# The lines that say what a report may lack, and end nothing
doubts='^kvmstat: (events lost|guests|processes|tracing_on|tracing was set right)'

# rows STATUS FILE NAMES: says what is wrong with the reports in FILE.  They are whole, and both
# are there if STATUS is not 1.  The guest has one of NAMES, and does as much port I/O as MMIO,
# give or take what it was at as an interval ended.
rows() {
	[ -z "$(tail -c 1 "$2")" ] || echo "half a row"
	sed 's/[|:]//g' "$2" | awk -v pid="$busy" -v threads="$threads" -v status="$1" -v names=" $3 " '
		$1 == "pid" && $NF == "name" { next }
		NF < 12 || $1 $3 $4 $5 $6 $7 $8 $9 $10 $11 ~ /[^0-9]/ { print "no row: " $0 }
		$1 != pid && index(threads, " " $1 " ") { print "a row of a thread: " $0 }
		$1 == pid {
			if ($2 != n++ % 2 || !index(names, " " $NF " "))
				print "a wrong row: " $0
			exits[$2] += $3; haltx += $4; iox += $7; mmiox += $8
		}
		END {
			if (n % 2 != 0 || (status != 1 && n != 4))
				print n + 0 " rows"
			if (status != 1 && (!exits[0] || !exits[1] || !haltx || (iox - mmiox) ^ 2 > 25))
				print "wrong counts: " exits[0] + 0, exits[1] + 0, haltx + 0, iox + 0, mmiox + 0
		}'
}

# recording STATUS DIR: says what is wrong with what -w left in DIR/dir
recording() {
	local files
	files=$(ls -A "$2/dir")
	# A file whose removal fails can but stay.
	[ "$files" = x.dat ] || grep -q 'unlinkat.*INJECTED' "$2"/log.* || echo "left: $files"
	if [ "$1" -eq 1 ] && cmp -s "$2/dir/x.dat" <(echo older); then
		return
	fi
	! grep -q 'nothing is recorded' "$2/err" || echo "recorded, and says no"
	"$kvmstat" -H -n -p "$busy" -r "$2/dir/x.dat" >"$2/recorded" 2>/dev/null
	[ $? -eq "$1" ] || [ "$1" -eq 1 ] || grep -Eq "$doubts|recorded up to" "$2/err" || echo "no recording"
	# The reports go on after a recording that has ended.
	! grep -q 'recorded up to' "$2/err" || return
	# As an instance is set right, what was read of it and saved, but not counted yet, is dropped.
	[ "$1" -eq 1 ] || [ "$(sums "$2/out")" = "$(sums "$2/recorded")" ] || grep -q 'set right' "$2/err" ||
		echo "recorded is not what was reported"
}

# messages STATUS FILE: says what is wrong with a run's status and stderr
messages() {
	local lines
	# Where there is no memory from some time on, there is none to complete a recording either.
	lines=$(uniq "$2" | grep -v "$no_name" | sed '1!{/^kvmstat: out of memory$/d}' | wc -l)
	[ "$(grep -c "$no_name" "$2")" -le 1 ] || echo "no name, and not one line"
	case $1 in
	0) [ "$lines" -eq 0 ] || echo "status 0, and something on stderr" ;;
	1) [ "$lines" -eq 1 ] && grep -Eq '^kvmstat: [^:]' "$2" || echo "status 1, and not one line" ;;
	3) ! grep -v "$no_name" "$2" | grep -Eqv "$doubts" || echo "status 3, and another line" ;;
	124 | 137) echo "does not end" ;;
	*) echo "status $1" ;;
	esac
}

# gone DIR: that no process of the run in DIR is there
gone() {
	! pgrep -f "^$1/kvmstat " >/dev/null
}

# main_of DIR: the process that is not the one that removes the instance
main_of() {
	grep -l execve "$1"/log.* | sed 's/.*[.]//'
}

# left DIR: says what a run left behind
left() {
	[ ! -d "$instances/kvmstat.$(main_of "$1")" ] || echo "the instance is left"
	until_true 1 gone "$1" || echo "a process is left"
	[ "$(cat /proc/self/mountinfo)" = "$mounts" ] || echo "a mount is left"
}

# interrupted STATUS DIR: says if what waits did not go on after a signal, or if what tells of
# events failed, and the report has what it told
interrupted() {
	if grep -q 'EINTR.*INJECTED' "$2"/log.*; then
		[ "$1" -ne 1 ] || echo "EINTR is no error"
	elif grep -Eq '^(poll|ppoll|read.*trace_pipe_raw).*INJECTED' "$2"/log.*; then
		[ "$1" -eq 1 ] || echo "events may be missing"
	fi
}

# wrong MODE STATUS DIR: says what is wrong with a run
wrong() {
	messages "$2" "$3/err"
	left "$3"
	interrupted "$2" "$3"
	if [ "$1" != read ]; then
		rows "$2" "$3/out" "faulty $(! grep -q "$no_name" "$3/err" || echo guest)"
	elif [ "$2" -eq 1 ]; then
		cmp -s "$3/out" <(head -n "$(wc -l <"$3/out")" "$tmp/wanted") || echo "half a report"
	else
		cmp -s "$3/out" "$tmp/wanted" || echo "a wrong report"
	fi
	[ "$1" != record ] || recording "$2" "$3"
}

# try MODE DIR REGEX STRACE'S OPTIONS...: kvmstat with a fault; DIR/result tells what happened.
# Runs differ: where another call failed than those that match REGEX, that says nothing.
try() {
	local mode=$1 dir=$2 regex=$3 status command result faults logs=--output-separately
	shift 3
	command_of "$mode" "$dir"
	[ "$mode" != janitor ] || logs=-ff
	timeout -k 1 20 strace -qq -y "$@" "$logs" -o "$dir/log" "${command[@]}" \
		>"$dir/out" 2>"$dir/err" </dev/null
	status=$?
	case $status in 0) result=report ;; 3) result=lost ;; *) result=error ;; esac
	grep -q INJECTED "$dir"/log.* || result=missed
	if grep -h INJECTED "$dir"/log.* | grep -Eqv "$regex"; then
		result=missed
		rmdir "$instances/kvmstat.$(main_of "$dir")" 2>/dev/null
	else
		faults=$(wrong "$mode" "$status" "$dir")
	fi
	if [ -n "${faults:-}" ]; then
		result=wrong
		{
			echo "${dir##*/}:"
			xargs -d '\n' <<<"$faults"
			grep -h INJECTED "$dir"/log.* | head -n 3
			head -n 3 "$dir/err"
		} >"$dir/why"
		pkill -KILL -f "^$dir/kvmstat "
	fi
	echo "$result" >"$dir/result"
}

# run MODE DIR REGEX STRACE'S OPTIONS...: the same.  Four of them share the machine, so that the guest
# may get too little of it: what is wrong is told, and counts if it is wrong a second time.
run() {
	try "$@"
	[ "$(cat "$2/result")" = wrong ] || return
	sed 's/^/# once: /' "$2/why" >&2
	rm -rf "$2"
	try "$@"
}

# start_run GROUP MODE REGEX STRACE'S OPTIONS...: a run in the background, 4 of them at a time
start_run() {
	local dir=$tmp/$1.$((nruns += 1))
	if [ "$running" -lt 4 ]; then
		running=$((running + 1))
	else
		wait -n
	fi
	run "$2" "$dir" "${@:3}" &
}

# learn MODE [STRACE'S OPTIONS...]: a run without a fault, whose calls go to a log
learn() {
	local command
	command_of "$1" "$tmp/$1.learn.$((nruns += 1))"
	strace -qq -y -o "$tmp/$1.log" "${@:2}" "${command[@]}" >/dev/null 2>"$tmp/err" </dev/null
	is "$?$(cat "$tmp/err")" 0 "$*: no fault, no error"
}

# calls MODE: the names of those that main() made
calls() {
	sed -n '/^fcntl(0[<,]/,$ s/^\([a-z0-9_]*\)(.*/\1/p' "$tmp/$1.log" | sort -u
}

# occurrences MODE CALL [REGEX]: which of a run's calls of that name are main()'s and match
occurrences() {
	awk -v call="$2(" -v regex="${3:-.}" '
		/^fcntl\(0[<,]/ { main = 1 }
		index($0, call) == 1 && ++n && main && $0 ~ regex { print n }' "$tmp/$1.log"
}

# sample: those of the lines that are to be tried
sample() {
	awk -v first="$first" 'NR <= first || (NR % 10 == 0 && NR <= 200) || NR % 200 == 0'
}

# error_of MODE CALL: how it is most likely to fail; nothing if it cannot, or fails only in
# ways of its own, see below.  (Of close(), strace makes one that leaves the file open, as no
# kernel does.)
error_of() {
	case $2 in
	close | fcntl | brk | mmap | mremap | munmap | madvise | mprotect) ;;
	rt_sig* | sigaltstack | get*id | clock_* | exit_group | uname | getrandom | rseq | set_* | prctl) ;;
	openat | pipe2 | socketpair | inotify_init1) echo EMFILE ;;
	read | poll | ppoll | getdents64 | readlinkat | newfstatat | fstat | mkdirat) echo ENOMEM ;;
	access | faccessat* | rename*) echo EACCES ;;
	fsopen | fsconfig | fsmount | kill | tgkill | prlimit64) echo EPERM ;;
	flock) echo ENOLCK ;;
	write) if [ "$1" = record ]; then echo ENOSPC; else echo EIO; fi ;;
	sendfile | copy_file_range | inotify_add_watch) echo ENOSPC ;;
	io_setup | io_submit) echo EAGAIN ;;
	fallocate) echo EOPNOTSUPP ;;
	clone* | *fork) echo EAGAIN ;;
	wait4) echo ECHILD ;;
	unlinkat) echo EBUSY ;;
	*) echo EIO ;;
	esac
}

# start_runs MODE CALL ERROR [REGEX]: those in which each of these occurrences fails
start_runs() {
	local n
	for n in $(occurrences "$1" "$2" "${4:-}" | sample); do
		start_run "$1.$2.$3" "$1" "${4:-.}" -e "trace=execve,$2" -e "inject=$2:error=$3:when=$n"
	done
	groups+=("$1 $2 $3 $(occurrences "$1" "$2" "${4:-}" | wc -l)")
}

# start_memory_runs MODE: those in which the kernel gives no memory, for a while and for good.
# glibc's malloc() is made to ask it for each object.
start_memory_runs() {
	local n when options=(-E MALLOC_MMAP_THRESHOLD_=1 -E MALLOC_MMAP_MAX_=1000000)
	learn "$1" "${options[@]}"
	options+=(-e "trace=execve,brk,mmap,mremap" -e "inject=brk,mremap:error=ENOMEM")
	for n in $(occurrences "$1" mmap | sample); do
		# By turns
		when="$n+"
		[ $((n % 2)) -eq 0 ] || when="$n..$((n + 5))"
		start_run "$1.mmap.ENOMEM" "$1" . "${options[@]}" -e "inject=mmap:error=ENOMEM:when=$when"
	done
	groups+=("$1 mmap ENOMEM $(occurrences "$1" mmap | wc -l)")
}

# janitor CALL ERROR WHEN [STRACE'S OPTIONS...]: a run in which that fails in the process that
# removes the instance, and perhaps in the other
janitor() {
	start_run "janitor.$1.$2" janitor . -e "trace=execve,$1" -e "inject=$1:error=$2:when=$3" "${@:4}"
	groups+=("janitor $1 $2 1")
}

# show: the table of what happened, a line and a test for each group of runs
show() {
	local mode call error ncalls results result
	printf '# %-7s %-17s %-10s %6s %5s %7s %6s %5s %7s %6s\n' \
		run call 'fails with' calls runs report error lost missed wrong
	while read -r mode call error ncalls; do
		results=$(cat "$tmp/$mode.$call.$error".*/result 2>/dev/null)
		printf '# %-7s %-17s %-10s %6d %5d' "$mode" "$call" "$error" "$ncalls" "$(grep -c . <<<"$results")"
		for result in report:7 error:6 lost:5 missed:7 wrong:6; do
			printf " %${result#*:}d" "$(grep -cx "${result%:*}" <<<"$results")"
		done
		echo
	done < <(printf '%s\n' "${groups[@]}" | uniq)
	results=$(cat "$tmp"/*/result)
	[ "$(grep -c . <<<"$results")" -gt "$least" ] && ! grep -qx wrong <<<"$results" &&
		[ "$(grep -cx missed <<<"$results")" -lt "$((least / 4))" ]
	ok $? "each run: the right report, or one error; and nothing is left"
	cat "$tmp"/*/why 2>/dev/null | cut -c 1-300 | sed 's/^/# /'
}

start_guest busy -v 2 -n 0 -l omh -s 500 -T -N -name faulty
busy=$pid
threads=" $(find "/proc/$busy/task/" -mindepth 1 -maxdepth 1 -printf '%f ')"
mounts=$(cat /proc/self/mountinfo)
"$kvmstat" -n -r "$capture" 0.2 >"$tmp/wanted"

for mode in live record read; do
	learn "$mode"
	for call in $(calls "$mode"); do
		error=$(error_of "$mode" "$call")
		[ -z "$error" ] || start_runs "$mode" "$call" "$error"
	done
	# What is closed as kvmstat starts.
	start_runs "$mode" fcntl EBADF '^fcntl[(][012][<,].*F_GETFD'
	# What waits, a signal can interrupt.
	start_runs "$mode" write EINTR '^write[(]1<'
	[ "$mode" = read ] || start_runs "$mode" read EINTR trace_pipe_raw
	[ "$mode" = read ] || start_runs "$mode" poll EINTR
	[ "$mode" = read ] || start_runs "$mode" ppoll EINTR
	[ "$mode" = read ] || start_runs "$mode" wait4 EINTR
	# The sanitizers have their own malloc(), which gives up.
	[ "$first" -eq 1 ] || start_memory_runs "$mode"
done
janitor chdir EACCES 1
janitor unlinkat EBUSY 1..20
janitor clock_nanosleep EINTR 1+ -e trace=unlinkat -e inject=unlinkat:error=EBUSY:when=1..20
while [ "$running" -gt 0 ]; do
	wait -n
	running=$((running - 1))
done
show
done_testing
