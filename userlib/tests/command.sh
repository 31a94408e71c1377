#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# command.sh [TEST...]: tests of the tlock command. Run as root with the module
# loaded. TLOCK_COMMAND is the command to test, by default the one in
# build/userlib. The test without the module needs TLOCK_KO, the module's path.
#
# Each function test_NAME is a test, run in a shell of its own with errexit.

# Variables with words that have no blanks, and quoted scripts for other shells:
# shellcheck disable=SC2086,SC2016,SC2013

set -u

here=$(dirname "$(readlink -f "$0")")
top=$(readlink -f "$here/../..")
. "$top/scripts/options"
operands 0 999 "$@"
tlock=$(readlink -f "${TLOCK_COMMAND:-$top/build/userlib/tlock}")
sysfs=/sys/class/tlock/tlock
export LC_ALL=C.UTF-8
unset SHELL

work=$(mktemp -d)
trap 'exec 8>&-; rm -rf "$work"' EXIT
cd "$work" || exit 1
# The tests choose their locks themselves
unset TLOCK

### Building blocks of the tests. They start few processes, which are slow here.

# Nobody writes to 7. Python reads questions from 8 and answers at 9.
mkfifo .silence .questions .answers
exec 7<>.silence 9<>.answers
/usr/bin/python3 -c '
import datetime, json, re, sys, time, unicodedata
def width(line):
    return sum(0 if unicodedata.combining(c) else
               2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)
def seconds(since):
    # Drop the colon of the offset, which %z does not read everywhere
    since = since[:-3] + since[-2:]
    return datetime.datetime.strptime(since, "%Y-%m-%dT%H:%M:%S%z").timestamp()
def took(span):
    number, unit = re.fullmatch("([0-9.]+)(us|ms|s)", span).groups()
    return float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1}[unit]
def printable(text):
    return not any(unicodedata.category(c) == "Cc" and c != "\n" for c in text)
for line in sys.stdin:
    path, expression = line.split(" ", 1)
    try:
        text = open(path, encoding="utf-8", newline="").read()
        if text.startswith("{"):
            try:
                j = json.loads(text)
            except ValueError:
                j = [json.loads(line) for line in text.splitlines()]
            l = j["locks"][0] if "locks" in j and j["locks"] else None
        answer = "yes" if eval(expression) else "no: " + repr(text)
    except Exception as error:
        answer = repr(error)
    print(answer, flush=True)' <.questions >&9 &
exec 8>.questions

# check EXPRESSION FILE: is the expression true of the file's text, its JSON j (a
# list if each line is an object of its own), or the first lock l there?
check() {
	local answer

	echo "$2 ${1//$'\n'/ }" >&8
	read -r answer <&9
	[[ $answer == yes ]]
}

# until_ok COMMAND...: wait until it succeeds; fail after two minutes
until_ok() {
	local end=$((SECONDS + 120))

	until "$@"; do
		((SECONDS < end)) || return 1
		read -rt 0.05 -u 7 || :
	done 2>/dev/null
}

is() {
	local value

	read -r value <"$sysfs/$1" && [[ $value == "$2" ]]
}

has_child() {
	# No newline at its end
	read -r <"/proc/$1/task/$1/children" || [[ $REPLY ]]
}

# in_file PATTERN FILE: does a line match it?
in_file() {
	local line lines

	mapfile -t lines <"$2"
	for line in "${lines[@]}"; do
		[[ ! $line =~ $1 ]] || return 0
	done
	return 1
}

# lacks PATTERN FILE: does no line match it?
lacks() {
	! in_file "$@"
}

# run STATUS COMMAND...: it exits with STATUS; its output goes to out and err
run() {
	local expected=$1 status=0

	shift
	"$@" >out 2>err || status=$?
	[[ $status -eq $expected ]] || {
		echo "exit status $status"
		cat out err
		return 1
	}
}

# make_locks NAME...: these, and the first, are all the locks until the test ends
make_locks() {
	local name

	for name; do
		echo "$name" >/sys/class/tlock/new_lock
	done
}

delete_lock() {
	echo "$1" >/sys/class/tlock/delete_lock
}

# delete_locks: delete all but the first; fails if one is still in use
delete_locks() {
	local path failed=0

	for path in /sys/class/tlock/tlock-*; do
		[[ ! -e $path ]] || delete_lock "${path##*/tlock-}" || failed=1
	done
	return $failed
}

# job_is JOB LOCK: is this the job for which the named lock is held?
job_is() {
	local job

	read -r job <"/sys/class/tlock/tlock-$2/job" && [[ $job == "$1" ]]
}

# hold [OPTION...]: hold the lock until let_go; $holder is the process, and what
# it says goes to holder-err
hold() {
	rm -f fifo
	mkfifo fifo
	"$tlock" run "$@" head -n 1 <>fifo >/dev/null 2>holder-err &
	holder=$!
	until_ok is pid "$holder"
	until_ok has_child "$holder"
}

let_go() {
	echo >fifo
	wait "$holder"
}

# hold_raw COMM JOB: the same, with any bytes in the names
hold_raw() {
	rm -f fifo
	mkfifo fifo
	perl -e '
		open(my $comm, ">", "/proc/self/comm") or die;
		syswrite($comm, $ARGV[0]);
		open(my $lock, "+<", "/dev/tlock") or die;
		my $arg = pack("qx64a64x120", -1, $ARGV[1]);
		ioctl($lock, 0xC100BC00, $arg) or die;	# TLOCK_IOC_ACQUIRE
		<STDIN>;
		ioctl($lock, 0xBC01, 0) or die;		# TLOCK_IOC_RELEASE
	' "$1" "$2" <>fifo &
	holder=$!
	until_ok is pid "$holder"
}

# background COMMAND...: run it with the signals and stdin of a foreground
# command
background() {
	env --default-signal=INT,QUIT "$@" <&0 &
}

not_abandoned() {
	run 0 "$tlock" run -n printenv TLOCK_ABANDONED
	[[ $(<out) == 0 && ! -s err ]]
}

is_abandoned() {
	run 0 "$tlock" run -w 120 printenv TLOCK_ABANDONED
	[[ $(<out) == 1 ]]
	in_file '^tlock: /dev/tlock was abandoned: .*middle of a command' err
}

### tlock run

test_passes_status_on() {
	for status in 0 1 3 255; do
		run $status "$tlock" run sh -c "exit $status"
	done
	run 0 "$tlock" run -- echo --verbose '  two words'
	[[ $(<out) == "--verbose   two words" && ! -s err ]]
	not_abandoned
}

test_job_is_the_commands_name() {
	run 0 "$tlock" run cat $sysfs/job $sysfs/comm
	[[ $(<out) == cat$'\n'cat ]]
	run 0 "$tlock" run "$(command -v cat)" $sysfs/job $sysfs/comm
	[[ $(<out) == cat$'\n'cat ]]
}

test_job_of_a_string() {
	run 0 "$tlock" run -c "cat $sysfs/job $sysfs/comm"
	[[ $(<out) == "cat $sysfs/job $sysfs/comm"$'\n'sh ]]
	run 0 "$tlock" run -c $'cat /sys/class/tlock/tlock/job\n#\t\xc2\x85\x7fé'
	[[ $(<out) == 'cat /sys/class/tlock/tlock/job?#???é' ]]
	printf -v string "cat %s/job; : %099d" "$sysfs" 0
	run 0 "$tlock" run -c "$string"
	[[ $(<out) == "${string:0:60}…" ]]
}

test_job_option() {
	for option in -j --job; do
		run 0 "$tlock" run $option "é ü" cat $sysfs/job
		[[ $(<out) == "é ü" ]]
	done
	printf -v longest %063d 0
	run 0 "$tlock" run -j "$longest" cat $sysfs/job
	[[ $(<out) == "$longest" ]]
	run 0 "$tlock" run -j '' cat $sysfs/job
	[[ $(<out) == "" ]]
}

test_job_never_fails() {
	local job expected count=0

	while IFS=$'\t' read -r job expected; do
		[[ $job && $job != '#'* ]] || continue
		run 0 "$tlock" run -j "$(printf '%b' "$job")" cat $sysfs/job
		[[ ! -s err && $(<out) == "$(printf '%b' "$expected")" ]]
		count=$((count + 1))
	done <"$here/jobs"
	((count >= 20))
}

test_nonblock() {
	hold
	for options in -n --nonblock --nonblocking --nb "-w 0" "-w 0.0" \
		"-n -w 60" "-w 60 -n"; do
		run 1 "$tlock" run $options echo never
		[[ ! -s out ]]
		in_file "^tlock: /dev/tlock: held by job 'head' " err
	done
	let_go
	run 0 "$tlock" run -n true
}

test_timeout_says_who() {
	hold -j "my job"
	for options in "-w 0.1" "-w .1" "-w0.1" "--timeout 0.1" "--wait=0.1"; do
		run 1 "$tlock" run $options echo never
		[[ ! -s out ]]
		in_file "^tlock: /dev/tlock: timed out after 100ms: held by job 'my job' \(head, pid $holder, user root\) for [0-9.]+(ms|s)$" err
	done
	let_go
	hold -j ''
	run 1 "$tlock" run -n true
	in_file "^tlock: /dev/tlock: held by head \(pid $holder, user root\) for " err
	let_go
	not_abandoned
}

test_quiet() {
	hold
	for options in "-qn" "--quiet -w 0.1" "-q -n -E 1"; do
		run 1 "$tlock" run $options echo never
		[[ ! -s out && ! -s err ]]
	done
	let_go
	# -q suppresses nothing else: cron must still mail it
	run 69 "$tlock" run -q ./nosuch
	[[ -s err ]]
	run 66 "$tlock" run -q -d nosuch true
	[[ -s err ]]
	run 137 "$tlock" run -q sh -c 'echo said >&2; kill -9 $$'
	in_file ^said err
	in_file 'passes on as abandoned' err
	run 0 "$tlock" run -q -w 120 true
	in_file 'was abandoned' err
}

test_waits_for_its_turn() {
	hold
	"$tlock" run -w 3600 echo first >order &
	until_ok is waiters 1
	"$tlock" run echo second >>order &
	until_ok is waiters 2
	let_go
	wait
	[[ $(<order) == first$'\n'second ]]
}

test_conflict_exit_code() {
	hold
	run 42 "$tlock" run -n -E 42 echo never
	run 0 "$tlock" run -w 0.1 -E 0 echo never
	[[ ! -s out ]]
	run 255 "$tlock" run -n --conflict-exit-code=255 echo never
	let_go
	for code in 256 -1 x '' ' 1' 1x 99999999999999999999; do
		run 64 "$tlock" run -E "$code" echo never
		[[ ! -s out ]]
		in_file '^tlock: invalid exit code: ' err
	done
}

test_bad_timeouts() {
	for seconds in '' -1 +1 x 3m 1e3 inf nan 0x10 ' 1' '1 ' . 1.2.3 1,5; do
		run 64 "$tlock" run -w "$seconds" echo never
		[[ ! -s out ]]
		[[ $(head -n 1 err) == "tlock: invalid timeout value: '$seconds' (expected seconds, such as 180)" ]]
	done
	for seconds in 1 1. 007 99999999999999999999999; do
		run 0 "$tlock" run -w "$seconds" true
	done
}

test_what_flock_has_and_tlock_has_not() {
	for option in -x -e --exclusive; do
		run 0 "$tlock" run $option true
	done
	for option in -s --shared; do
		run 64 "$tlock" run $option echo never
		in_file '^tlock: a lock cannot be shared: leave out -s' err
	done
	for option in -u --unlock; do
		run 64 "$tlock" run $option 9
		in_file '^tlock: a lock cannot be released for .*: leave out -u' err
	done
	for options in "--fd 9" --fd=9 --fd; do
		run 64 "$tlock" run $options echo never
		in_file '^tlock: a shell.s descriptor cannot be locked: use .*; flock 9' err
	done
	for options in --fcntl "--start 0" --start=0 "--length 1" --length=1; do
		run 64 "$tlock" run $options echo never
		in_file '^tlock: a lock has no byte ranges, .*: leave out --fcntl, ' err
	done
	[[ ! -s out ]]
	run 64 "$tlock" run -n 9
	in_file "'9' is not a command: use .*; flock 9' .* -c STRING or a script" err
}

test_flock_excludes_and_is_excluded() {
	hold -j acq
	run 1 flock -n /dev/tlock echo never
	run 1 flock -w 0.1 /dev/tlock echo never
	[[ ! -s out ]]
	run 65 flock -s /dev/tlock echo never
	flock -w 3600 /dev/tlock sh -c "cat $sysfs/job $sysfs/comm" >out2 &
	until_ok is waiters 1
	let_go
	wait $!
	[[ $(<out2) == $'\n'flock ]]
	# Closing the file is how flock ends
	not_abandoned

	exec 9<>/dev/tlock
	flock 9
	run 1 "$tlock" run -n echo never
	in_file "^tlock: /dev/tlock: held by flock \(ended or not visible from here, user root\) for " err
	"$tlock" run -w 3600 echo hello >out2 &
	until_ok is waiters 1
	flock -u 9
	wait $!
	[[ $(<out2) == hello ]]
	flock -n 9
	run 1 "$tlock" run -n echo never
	exec 9>&-
	not_abandoned
}

# same WORDS...: flock(1), with the lock file "file" for each @, exits with the
# same status and prints the same as tlock run
same() {
	local status=0

	flock "${@//@/file}" >out2 2>/dev/null || status=$?
	run $status "$tlock" run "${@//@//dev/tlock}"
	cmp out out2
}

test_same_as_flock() {
	exec 6>file
	for state in free held; do
		for words in "-n @" "-w 0 @" "-w .1 @" "--wait=0.1 @" "-n -w 9 @" \
			"-w 9 -n @" "-n -E 7 @" "-w 0.1 -E0 @" "-xn @" "-en @" \
			"-on @" "-Fn @" "--nb --conflict-exit-code 255 -- @"; do
			same $words echo hello
		done
		[[ $state == held ]] || {
			hold
			flock 6
		}
	done
	let_go
	exec 6>&-
	for words in "" -n @ "-w x @ echo" "-E 256 @ echo" "-E x @ echo" \
		"-Fo @ echo" "--nosuch @ echo" "@ ./nosuch" "@ /etc/passwd" \
		"-F @ ./nosuch" "@ -c" "@ -c echo more"; do
		same $words
	done
	same @ ''
	for option in "" -o -F; do
		same $option @ sh -c 'echo hello; exit 5'
		same $option @ sh -c 'kill $$'
	done
	same @ -c 'echo hello; exit 6'
	same @ --command 'kill -9 $$'
}

test_string_through_the_shell() {
	run 7 "$tlock" run -c 'echo "$0"; exit 7'
	[[ $(<out) == /bin/sh ]]
	run 0 "$tlock" run --command 'echo a | tr a b'
	[[ $(<out) == b ]]
	printf '#!/bin/sh\nprintf "<%%s>" "$@"' >shell
	chmod +x shell
	SHELL=$PWD/shell run 0 "$tlock" run -c 'a  b'
	[[ $(<out) == "<-c><a  b>" ]]
	SHELL='' run 0 "$tlock" run -c 'echo "$0"'
	[[ $(<out) == /bin/sh ]]
	run 64 "$tlock" run -c 'echo never' more
	in_file 'exactly one STRING' err
	run 64 "$tlock" run -c
	[[ ! -s out ]]
}

test_lock_in_flocks_place() {
	run 0 "$tlock" run -w 3 /dev/tlock echo a b
	[[ $(<out) == "a b" ]]
	for option in -c --command; do
		run 0 "$tlock" run /dev/tlock $option 'echo a; echo b'
		[[ $(<out) == a$'\n'b ]]
		run 64 "$tlock" run /dev/tlock $option
		run 64 "$tlock" run /dev/tlock $option 'echo never' more
	done
	run 64 "$tlock" run /dev/tlock
	run 66 "$tlock" run /dev/tlock-nosuch echo never
	run 69 "$tlock" run -d tlock /dev/tlock
}

# refuses_lock_file FILE REASON: in flock's place, and without waiting
refuses_lock_file() {
	for words in "./script 60" "-c ./script"; do
		run 69 timeout 60 "$tlock" run -w 3600 "$1" $words
		[[ $(<err) == "tlock: failed to execute $1: $2"$'\n'"tlock: if $1 is a lock file for flock, leave it out; if it is a lock, name it with -d" ]]
	done
}

test_lock_file_in_flocks_place() {
	printf '#!/bin/sh\necho "$0" "$@"' >script
	chmod +x script
	ln -s script not-empty
	: >file
	: >empty
	chmod +x empty
	ln -s /dev/tlock lock
	mkdir dir

	hold
	refuses_lock_file ./nosuch "No such file or directory"
	refuses_lock_file ./file "Permission denied"
	refuses_lock_file ./dir "Is a directory"
	refuses_lock_file ./empty "Exec format error"
	refuses_lock_file ./lock "Permission denied"
	[[ ! -s out ]]
	let_go
	# This is known only once it is looked for in PATH
	refuses_lock_file nosuch "No such file or directory"

	# Is it the lock file of flock, or a command?
	run 0 "$tlock" run -w 3 ./script ./not-empty
	[[ $(<out) == "./script ./not-empty" && ! -s err ]]
	run 0 "$tlock" run ./script -c x
	[[ $(<out) == "./script -c x" ]]
	run 0 "$tlock" run echo echo
	[[ $(<out) == echo ]]
	run 0 "$tlock" run -d tlock ./script ./script
	[[ $(<out) == "./script ./script" ]]
	run 0 "$tlock" run ./empty
	for words in "./nosuch 1" "./dir 1"; do
		run 69 "$tlock" run -d tlock $words
		[[ $(wc -l <err) -eq 1 ]]
	done
}

# The lines that flock(1) recommends for the head of a script
test_script_that_locks_itself() {
	local line='[ "${FLOCKER}" != "$0" ] && exec env FLOCKER="$0" flock -en "$0" "$0" "$@" || :'

	printf '%s\n' '#!/bin/sh' "$line" 'echo "args: $*"' >flock.sh
	printf '%s\n' '#!/bin/sh' "${line/ flock / $tlock run }" \
		'echo "args: $*"' >tlock.sh
	chmod +x flock.sh tlock.sh
	run 0 ./flock.sh a b
	[[ $(<out) == "args: a b" ]]
	for script in ./tlock.sh "$PWD/tlock.sh"; do
		run 64 "$script" a b
		[[ ! -s out ]]
		in_file "^tlock: $script is given twice: .* leave out the first one: 'tlock run -n -- \"[$]0\" \"[$]@\"'" err
	done
	# Do as the message says
	sed -i 's/-en "$0" "$0"/-n -- "$0"/' tlock.sh
	run 0 ./tlock.sh a b
	[[ $(<out) == "args: a b" && ! -s err ]]
	hold
	run 1 ./tlock.sh a b
	let_go
}

test_device_option() {
	for lock in tlock /dev/tlock /dev/../dev/tlock; do
		run 0 "$tlock" run -d $lock cat $sysfs/job
		run 0 "$tlock" run --device=$lock cat $sysfs/job
		[[ $(<out) == cat ]]
	done
	for lock in nosuch tlock-nosuch /dev/tlock-nosuch; do
		run 66 "$tlock" run -d $lock echo never
		in_file '^tlock: /dev/tlock-nosuch: ' err
	done
	for lock in /dev/null /dev . ''; do
		run 66 "$tlock" run -d "$lock" echo never
		[[ ! -s out && -s err ]]
	done
}

test_command_that_cannot_be_executed() {
	for options in "" -F -o; do
		run 69 "$tlock" run $options ./nosuch
		in_file '^tlock: failed to execute ./nosuch: No such' err
		run 69 "$tlock" run $options /etc/passwd
		in_file 'execute /etc/passwd: Perm' err
		not_abandoned
	done
}

test_bad_usage() {
	for words in "" --nosuch -w -d -j -E -c "-n -w 1 --"; do
		run 64 "$tlock" run $words
		[[ ! -s out ]]
		in_file "^tlock: |Try 'tlock run --help'" err
	done
	run 64 "$tlock" run -F -o echo never
	[[ ! -s out ]]
	for words in "" nosuch --nosuch -n; do
		run 64 "$tlock" $words
		in_file "^Try 'tlock --help' for more information" err
	done
}

test_words_of_messages() {
	while IFS='|' read -r words message; do
		run 64 "$tlock" $words
		[[ ! -s out && $(head -n 1 err) == "tlock: $message" ]]
	done <<-'END'
		|no command given
		bogus|unknown command 'bogus'
		--bogus|unknown option '--bogus'
		run|no COMMAND given
		run --bogus|unrecognized option '--bogus'
		run -w|option requires an argument -- 'w'
		run -E 256 true|invalid exit code: '256' (expected 0 to 255)
		run -Fo true|mutually exclusive: -F -o (nobody would hold the lock)
		run -F --lease 1 true|mutually exclusive: -F --lease (nobody would renew it)
		run --lease 0 true|a lease must be longer than 0 seconds
		run --lease x true|invalid lease value: 'x' (expected seconds, such as 180)
		run -c true more|-c requires exactly one STRING: quote it, or leave out -c
		run /dev/tlock -c|-c requires a STRING
		status --json --raw|mutually exclusive: --json --raw
		list --raw --json|mutually exclusive: --json --raw
		list tlock|list takes no LOCK: see 'tlock status'
		status -o bogus|unknown column: 'bogus'
		revoke|revoke takes one LOCK
		revoke tlock psu|revoke takes one LOCK
		revoke --bogus tlock|unrecognized option '--bogus'
		revoke --grace -1 tlock|invalid grace value: '-1' (expected seconds, such as 180)
		revoke --token x tlock|invalid token: 'x' (expected a number, as in 'tlock status -o +TOKEN')
		revoke --token 0 tlock|invalid token: '0' (expected a number, as in 'tlock status -o +TOKEN')
		revoke --token -1 tlock|invalid token: '-1' (expected a number, as in 'tlock status -o +TOKEN')
		revoke --token 18446744073709551616 tlock|invalid token: '18446744073709551616' (expected a number, as in 'tlock status -o +TOKEN')
		create|no NAME given
		delete|no NAME given
		create --bogus|unrecognized option '--bogus'
	END
	run 0 "$tlock" run --help
	in_file '^ -x, --exclusive  +ignored, for flock compatibility$' out
	in_file 'exit status if the lock could not be acquired$' out
	in_file '^ -q, --quiet  +say nothing if the lock could not be acquired$' out
}

test_environment() {
	run 0 env TLOCK_TOKEN=1 TLOCK_ABANDONED=1 TLOCK_REVOKED=1 "$tlock" run \
		-c "cat $sysfs/token; echo \$TLOCK_TOKEN \$TLOCK_ABANDONED \$TLOCK_REVOKED"
	read -r -d '' token same abandoned revoked <out || :
	((token > 0 && token == same && abandoned == 0 && revoked == 0))
	run 0 "$tlock" run -F printenv TLOCK_TOKEN
	(($(<out) > token))
	is_abandoned
}

test_verbose() {
	hold
	"$tlock" run --verbose echo hello >out2 2>err2 &
	until_ok is waiters 1
	let_go
	wait
	[[ $(<out2) == hello ]]
	[[ $(<err2) =~ ^"tlock: getting lock took "[0-9]+\.[0-9]{6}" seconds"$'\n'"tlock: executing echo"$ ]]
}

### How the lock ends

test_command_has_the_descriptor() {
	run 0 "$tlock" run readlink /proc/self/fd/3
	[[ $(<out) == /dev/tlock ]]
	for option in -o --close; do
		run 0 "$tlock" run $option \
			sh -c 'readlink /proc/$$/fd/*; :'
		[[ $(<out) != *tlock* ]]
	done
	not_abandoned
}

test_ends_with_the_command() {
	run 0 "$tlock" run sh -c 'sleep 1000 >/dev/null 2>&1 & echo $!'
	pid=$(<out)
	is token 0
	not_abandoned
	kill "$pid"
	not_abandoned
}

test_command_killed() {
	run 137 "$tlock" run sh -c 'kill -9 $$'
	in_file '^tlock: sh was killed by signal 9 \(Killed\): /dev/tlock passes on as abandoned' err
	is_abandoned
	not_abandoned
	run 143 "$tlock" run -o sh -c 'kill $$'
	is_abandoned
}

test_command_killed_but_not_what_it_started() {
	run 137 "$tlock" run -j left \
		sh -c 'sleep 1000 >/dev/null 2>&1 & echo $!; kill -9 $$'
	mv out out2
	is job left
	is pid ''
	run 1 "$tlock" run -n echo never
	in_file "held by job 'left' \(sh, ended or not visible from here, user root\) for " err
	run 0 "$tlock" status --json
	check 'l["pid"] is None and l["job"] == "left"' out
	kill "$(<out2)"
	is_abandoned
}

test_runner_killed() {
	hold -j instrument
	kill -9 "$holder"
	wait "$holder" || :
	is job instrument
	is pid ''
	"$tlock" run printenv TLOCK_ABANDONED >next 2>/dev/null &
	until_ok is waiters 1
	echo >fifo
	wait $!
	[[ $(<next) == 1 ]]
}

test_runner_killed_with_close() {
	hold -o
	kill -9 "$holder"
	is_abandoned
	echo >fifo
}

test_no_fork() {
	for option in -F --no-fork; do
		"$tlock" run $option sh -c 'echo $$; exit 5' >out2 &
		pid=$!
		status=0
		wait $pid || status=$?
		[[ $status -eq 5 && $(<out2) -eq $pid ]]
		is_abandoned
	done
}

test_signals_passed_on() {
	for signal in HUP INT QUIT TERM USR1 USR2 CONT; do
		rm -f ready
		background "$tlock" run bash -c "
			trap 'exit 9' $signal
			: >ready
			while :; do read -rt 1 -u 7; done"
		until_ok test -e ready
		kill -$signal $!
		status=0
		wait $! || status=$?
		[[ $status -eq 9 ]]
		not_abandoned
	done
}

test_signal_that_kills_the_command() {
	background "$tlock" run sleep 1000
	until_ok is job sleep
	until_ok pgrep -P $!
	kill $!
	status=0
	wait $! || status=$?
	[[ $status -eq 143 ]]
	is_abandoned
}

test_signal_ends_the_wait() {
	hold
	for signal in INT TERM; do
		background "$tlock" run echo never >out2
		until_ok is waiters 1
		kill -$signal $!
		status=0
		wait $! || status=$?
		[[ $status -eq $((128 + $(kill -l $signal))) && ! -s out2 ]]
		is waiters 0
	done
	let_go
	not_abandoned
}

test_stopped_while_it_waits() {
	hold
	background "$tlock" run echo first >order
	waiter=$!
	until_ok is waiters 1
	kill -STOP $waiter
	until_ok is waiters 0
	background "$tlock" run echo second >>order
	until_ok is waiters 1
	kill -CONT $waiter
	until_ok is waiters 2
	let_go
	wait
	[[ $(<order) == first$'\n'second ]]
	not_abandoned
}

test_ignored_sigchld() {
	run 3 env --ignore-signal=CHLD "$tlock" run sh -c 'exit 3'
}

# terminal COMMAND...: run it on a terminal, until finish. Its output goes to
# "seen"; what is written to 5 is typed.
terminal() {
	rm -f keys
	mkfifo keys
	exec 5<>keys
	background SHELL=/bin/bash TERM=vt100 \
		script -qefc "$(printf '%q ' "$@")" /dev/null <&5 >seen
	terminal=$!
}

finish() {
	local expected=$1 status=0

	wait "$terminal" || status=$?
	[[ $status -eq $expected ]]
}

test_ctrl_c_reaches_the_command_once() {
	terminal "$tlock" run bash -c '
		trap "n=\$((n + 1)); echo interrupted" INT
		trap "exit \$n" USR1
		echo ready
		while :; do read -rt 1; done'
	until_ok in_file ready seen
	printf '\003' >&5
	until_ok in_file interrupted seen
	kill -USR1 "$(<$sysfs/pid)"
	finish 1
	not_abandoned
}

test_ctrl_c_kills_the_command() {
	terminal "$tlock" run sh -c 'echo ready; exec sleep 1000'
	until_ok in_file ready seen
	printf '\003' >&5
	finish 130
	is_abandoned
}

stopped() {
	in_file '^State:.*stopped' "/proc/$1/status"
}

test_stop_and_go_on() {
	terminal "$tlock" run sh -c 'echo ready; read line; echo "got $line"'
	until_ok in_file ready seen
	pid=$(<$sysfs/pid)
	# Ctrl-Z does not stop the first process on a terminal
	kill -STOP -- -"$pid"
	until_ok stopped "$pid"
	is job sh
	# script(1) stops, too
	until_ok stopped "$terminal"
	kill -CONT "$terminal"
	kill -CONT -- -"$pid"
	printf 'on\n' >&5
	until_ok in_file 'got on' seen
	finish 0
	not_abandoned
}

### Leases and revocation

# child_of PID: the command of this tlock run
child_of() {
	local child

	# No newline at its end
	read -r child <"/proc/$1/task/$1/children" || :
	echo "$child"
}

# state_is WORD [LOCK]: in what state is the lock?
state_is() {
	[[ $("$tlock" status -rn -o STATE "${2:-tlock}") == "$1" ]]
}

# was_revoked [OPTION...]: the lock can be acquired now or soon, and the next
# holder learns that it was revoked
was_revoked() {
	run 0 "$tlock" run -w 120 "$@" printenv TLOCK_REVOKED TLOCK_ABANDONED
	[[ $(<out) == 1$'\n'0 ]]
	[[ $(<err) == "tlock: /dev/tlock was revoked from an earlier holder, which may still be talking to the instrument" ]]
	not_revoked
}

not_revoked() {
	run 0 "$tlock" run -n printenv TLOCK_REVOKED
	[[ $(<out) == 0 && ! -s err ]]
}

# ends STATUS PID: this background process of ours exits with STATUS
ends() {
	local status=0

	wait "$2" || status=$?
	[[ $status -eq $1 ]]
}

# The lease ends twice while it is held
test_lease_is_renewed() {
	hold --lease 3
	wait_for tlock next
	until_ok held_longer_than 7
	run 1 "$tlock" run -n true
	in_file "^tlock: /dev/tlock: held by job 'head' \(head, pid $holder, user root\) for [0-9.]+s, expires in [0-3]\.[0-9]s$" err
	let_go
	wait "$waiter"
	[[ ! -s holder-err ]]
	not_revoked
}

test_lease_of_a_stopped_command() {
	hold --lease 1
	command=$(child_of "$holder")
	kill -STOP "$command"
	was_revoked -q
	# It is ended although it is stopped
	ends 75 "$holder"
	[[ ! -e /proc/$command ]]
	[[ $(<holder-err) == "tlock: /dev/tlock was revoked: ending head" ]]
}

# While nobody wants the lock, a command that goes on has lost nothing
test_lease_of_a_continued_command() {
	hold --lease 2
	command=$(child_of "$holder")
	kill -STOP "$command"
	until_ok state_is expired
	kill -CONT "$command"
	until_ok state_is held
	let_go
	not_revoked
}

# The second, to begin with 0, at which the lease of an hour was renewed
renewed_at() {
	local held left

	read -r held left < <("$tlock" status -rn -o HELD,EXPIRES)
	echo $((${held%.*} + ${left%.*} - 3600))
}

renewed_after() {
	(($(renewed_at) > $1))
}

# It is renewed at once, and not only after a third of the lease
test_lease_begins_anew_when_continued() {
	hold --lease 3600
	until_ok held_longer_than 4
	first=$(renewed_at)
	((first < 3))
	command=$(child_of "$holder")
	kill -STOP "$command"
	until_ok stopped "$command"
	[[ $(renewed_at) -le $((first + 1)) ]]
	kill -CONT "$command"
	until_ok renewed_after $((first + 1))
	let_go
}

test_lease_of_a_frozen_command() {
	for both in '' both; do
		hold --lease 1
		freeze ${both:+"$holder"} "$(child_of "$holder")"
		was_revoked
		thaw ends 75 "$holder"
	done
}

test_lease_of_a_traced_command() {
	hold --lease 1
	trace "$(child_of "$holder")"
	was_revoked
	kill "$tracer"
	ends 75 "$holder"
}

# The command has the descriptor, but nobody renews the lease
test_lease_of_a_killed_runner() {
	hold --lease 1
	command=$(child_of "$holder")
	kill -9 "$holder"
	wait "$holder" || :
	was_revoked
	[[ -e /proc/$command ]]
	echo >fifo
}

# A waiter has the lock no longer than its lease, even if it does not run
test_lease_of_a_waiter_that_cannot_run() {
	rm -f fifo
	mkfifo fifo
	# It keeps its CPU after it has released the lock
	taskset -c 0 chrt -f 50 perl -e '
		open(my $lock, "+<", "/dev/tlock") or die;
		my $arg = pack("qx64a64x120", -1, "busy");
		ioctl($lock, 0xC100BC00, $arg) or die;	# TLOCK_IOC_ACQUIRE
		<STDIN>;
		my $end = times() + 0.5;
		ioctl($lock, 0xBC01, 0) or die;		# TLOCK_IOC_RELEASE
		while (times() < $end) {}
	' <>fifo &
	until_ok is job busy
	taskset -c 0 "$tlock" run --lease 0.000000001 echo never >out2 2>err2 &
	waiter=$!
	until_ok is waiters 1
	"$tlock" run true 2>/dev/null &
	until_ok is waiters 2
	echo >fifo
	ends 75 "$waiter"
	[[ ! -s out2 && $(<err2) == "tlock: /dev/tlock was revoked before echo began" ]]
	wait
}

test_lease_values() {
	for seconds in '' -1 inf ' 1'; do
		run 64 "$tlock" run --lease "$seconds" echo never
		[[ ! -s out ]]
	done
	# Practically for ever
	hold --lease 99999999999999999999999
	run 0 "$tlock" status --json
	check 'l["expires"] is None' out
	let_go
	run 5 "$tlock" run --lease .5 sh -c 'exit 5'
	not_abandoned
}

### tlock revoke

test_revoke() {
	hold -j 'my job'
	run 0 "$tlock" revoke tlock
	[[ ! -s err && $(<out) =~ ^"/dev/tlock: held by job 'my job' (head, pid $holder, user root) for "[0-9.]+[um]?s", token "[0-9]+$'\n'"/dev/tlock: revoked, and now free"$ ]]
	is token 0
	ends 75 "$holder"
	[[ $(<holder-err) == "tlock: /dev/tlock was revoked: ending head" ]]
	was_revoked

	make_locks psu
	sysfs=/sys/class/tlock/tlock-psu
	hold -d psu
	"$tlock" run -d psu -j other head -n 1 <>fifo >/dev/null &
	other=$!
	until_ok is waiters 1
	run 0 "$tlock" revoke /dev/tlock-psu
	[[ $(tail -n 1 out) =~ ^"/dev/tlock-psu: revoked, and now held by job 'other' (head, pid $other, user root) for "[0-9.]+[um]?s$ ]]
	ends 75 "$holder"
	echo >fifo
	ends 0 $other
}

# What is left of these times: on a slow machine, a test's own steps take seconds
an_hour='(1h 0m|59m [0-9]+s)'
half_an_hour='(30m 0s|29m [0-9]+s)'
ten_minutes='(10m 0s|9m [0-9]+s)'

test_revoke_with_grace() {
	hold --lease 3600
	run 0 "$tlock" revoke --grace 1800 tlock
	[[ $(tail -n 1 out) =~ ^"/dev/tlock: will be revoked in "$half_an_hour,\ "or as soon as somebody wants it after that"$ ]]
	state revoking "(PID $holder) is being revoked; it keeps the lock until its grace has ended and somebody wants it"
	# It keeps the lock meanwhile
	run 1 "$tlock" run -n true
	in_file ", expires in $half_an_hour$" err
	wait_for tlock next
	# It can become shorter, but not longer
	run 0 "$tlock" revoke --grace=600 tlock
	[[ $(tail -n 1 out) =~ ^"/dev/tlock: will be revoked in "$ten_minutes$ ]]
	run 0 "$tlock" revoke --grace 1200 tlock
	[[ $(tail -n 1 out) =~ ^"/dev/tlock: will be revoked in "$ten_minutes$ ]]
	let_go
	wait "$waiter"
	not_revoked
}

# As soon as somebody wants the lock, whether it was renewed or not
test_grace_ends() {
	hold --lease 2
	run 0 "$tlock" revoke --grace 1 tlock
	until_ok state_is expired
	state expired "(PID $holder) has let its lease or grace expire; the lock passes on as soon as somebody wants it"
	run 0 "$tlock" status
	in_file '^tlock expired head .* ended +0$' out
	run 0 "$tlock" revoke --grace 1 tlock
	[[ $(head -n 1 out) == *", expired, token "* ]]
	[[ $(tail -n 1 out) == "/dev/tlock: will be revoked as soon as somebody wants it" ]]
	[[ $(<$sysfs/pid) == "$holder" ]]
	was_revoked
	ends 75 "$holder"
}

test_revoke_by_token() {
	hold
	token=$(<$sysfs/token)
	for other in 1 $((token - 1)) $((token + 1)) 18446744073709551615; do
		run 1 "$tlock" revoke --token $other tlock
		[[ $(<out) == "/dev/tlock: held by job 'head' "*", token $token" ]]
		[[ $(<err) == "tlock: /dev/tlock: this grant has another token: nothing was revoked" ]]
	done
	run 0 "$tlock" revoke --token "$token" tlock
	ends 75 "$holder"
	was_revoked
	refused 1 "/dev/tlock is free: nothing was revoked" "$tlock" revoke --token 1 tlock
	refused 1 "/dev/tlock is free: nothing was revoked" "$tlock" revoke --grace 1 tlock
}

writes() {
	[[ $(</proc/$1/wchan) == *pipe_write* ]]
}

# What it has not shown is not revoked
test_revoke_of_a_newer_grant() {
	hold -j old
	old=$holder
	wait_for tlock new -w 120
	# A pipe without room
	mkfifo pipe
	exec 6<>pipe
	head -c 65536 /dev/zero >&6
	"$tlock" revoke tlock >&6 2>err2 &
	revoker=$!
	until_ok writes $revoker
	echo >fifo
	ends 0 "$old"
	wait "$waiter"
	hold -j newer
	head -c 65536 <&6 >empty
	ends 1 $revoker
	[[ $(<err2) == "tlock: /dev/tlock: this grant has just ended: nothing was revoked" ]]
	read -r shown <&6
	[[ $shown == "/dev/tlock: held by job 'old' "* ]]
	run 1 "$tlock" run -n true
	let_go
	not_revoked
}

test_revoke_needs_permission() {
	mode=$(stat -c %a /dev/tlock)
	trap 'chmod "$mode" /dev/tlock; jobs -p | xargs -r kill -9 || :' EXIT
	hold
	run 66 $nobody "$tlock" revoke tlock
	in_file '^tlock: /dev/tlock: permission denied: ' err
	chmod 666 /dev/tlock
	run 77 $nobody "$tlock" revoke tlock
	[[ $(<err) == "tlock: /dev/tlock: permission denied: only root may revoke it" ]]
	[[ $(<out) == "/dev/tlock: held by job 'head' "* ]]
	let_go
	not_revoked
	# One's own, and root all
	for revoker in "$nobody" ''; do
		$nobody "$tlock" run head -n 1 <>fifo >/dev/null 2>&1 &
		holder=$!
		until_ok is pid $holder
		run 77 setpriv --reuid 65533 --regid 65533 --clear-groups \
			"$tlock" revoke tlock
		[[ $(<err) == "tlock: /dev/tlock: permission denied: only root and user nobody may revoke it" ]]
		run 0 $revoker "$tlock" revoke tlock
		ends 75 $holder
		was_revoked
	done
}

test_revoke_refused() {
	refused 66 "$("$tlock" run -d nosuch true 2>&1 | sed 's/^tlock: //')" \
		"$tlock" revoke nosuch
	for words in "" "tlock tlock"; do
		TLOCK=tlock run 64 "$tlock" revoke $words
		in_file "^Try 'tlock revoke --help' for more" err
	done
	# What cannot be shown is not revoked
	hold
	run 74 sh -c 'exec "$0" revoke tlock >/dev/full' "$tlock"
	in_file '^tlock: write error: ' err
	let_go
	not_revoked
}

# The command cleans up, but its status does not matter any more
test_revoked_command() {
	for options in "" -q; do
		rm -f ready
		"$tlock" run $options bash -c 'trap "echo cleaned up; exit 9" TERM
			: >ready
			while :; do read -rt 1 -u 7; done' >out2 2>err2 &
		holder=$!
		until_ok test -e ready
		run 0 "$tlock" revoke tlock
		ends 75 $holder
		[[ $(<out2) == "cleaned up" ]]
		[[ $(<err2) == "tlock: /dev/tlock was revoked: ending bash" ]]
		was_revoked
	done
}

# It had ended, by itself or killed, before it could be ended
test_revoked_before_the_command_ended() {
	for how in "echo >fifo" "kill -9 \$command"; do
		hold
		command=$(child_of "$holder")
		kill -STOP "$holder"
		until_ok stopped "$holder"
		run 0 "$tlock" revoke tlock
		eval "$how"
		until_ok in_file '^State:.*zombie' "/proc/$command/status"
		kill -CONT "$holder"
		ends 75 "$holder"
		[[ $(<holder-err) == "tlock: /dev/tlock was revoked before head ended" ]]
		was_revoked
	done
}

# Nobody is left who could learn it
test_revoke_without_fork() {
	"$tlock" run -F sleep 1000 &
	until_ok is pid $!
	run 0 "$tlock" revoke tlock
	is token 0
	was_revoked
	kill $!
	ends 143 $!
	not_abandoned
}

# The lines of the manual, for a holder that is stopped, and ignores SIGTERM
test_when_it_is_stuck() {
	make_locks psu
	sysfs=/sys/class/tlock/tlock-psu
	"$tlock" run -F -d psu perl -e '
		$SIG{TERM} = sub { open(my $file, ">", "terminated") };
		open(my $ready, ">", "ready");
		sleep 1000 while 1' &
	holder=$!
	until_ok test -e ready
	kill -STOP $holder
	until_ok stopped $holder
	mapfile -t lines < <(sed -n '/^\.SS When a lock is stuck/,/^\.EE/{
		/^[a-z]/{s/\\-/-/g; s/\<812\>/'$holder'/; p}
	}' "$top/userlib/man/tlock.1" | grep -E '^(tlock|kill) ')
	[[ ${#lines[@]} -eq 5 ]]
	mkdir bin
	ln -s "$tlock" bin/tlock
	for line in "${lines[@]}"; do
		PATH=$PWD/bin:$PATH run 0 bash -c "$line"
		case $line in
		*status*) in_file "^tlock-psu stopped perl +$holder " out ;;
		*CONT*) until_ok goes_on $holder ;;
		kill*) until_ok test -e terminated ;;
		*grace*) in_file ': will be revoked in ' out ;;
		esac
	done
	[[ $(tail -n 1 out) == "/dev/tlock-psu: revoked, and now free" ]]
	is token 0
	kill -9 $holder
}

goes_on() {
	lacks '^State:.*stopped' "/proc/$1/status"
}

test_status_of_leases() {
	make_locks psu
	hold --lease 3600 -j acq
	run 0 "$tlock" status
	mapfile -t lines <out
	[[ ${#lines[@]} -eq 3 ]]
	[[ ${lines[0]} =~ ^"LOCK      STATE JOB "\ *"PID USER COMMAND "\ *"HELD SINCE    EXPIRES WAITERS"$ ]]
	[[ ${lines[1]} =~ ^"tlock     held  acq "\ *$holder\ root\ head\ .*:..\ +$an_hour\ +0$ ]]
	[[ ${lines[2]} =~ ^"tlock-psu free "\ +0$ ]]
	run 0 "$tlock" status --json tlock
	check '3300 < l["expires"] <= 3600' out
	run 0 "$tlock" status -rn -o LOCK,EXPIRES,EXPIRES
	check 're.fullmatch(r"tlock (3[0-9]{3}\.[0-9]{9}) \1\ntlock-psu  \n", text)' out
	# Only for people, where somebody has a lease, and once
	for words in "status -r" "status --noheadings" "status psu" list \
		"status -o LOCK,STATE"; do
		run 0 "$tlock" $words
		lacks 'EXPIRES| (59m|1h) |3[0-9]{3}\.' out
	done
	run 0 "$tlock" status -o +TOKEN
	in_file ' SINCE +EXPIRES WAITERS +TOKEN$' out
	run 0 "$tlock" status -o +EXPIRES
	in_file ' SINCE +WAITERS EXPIRES$' out
	let_go
	run 0 "$tlock" status
	lacks EXPIRES out
}

test_screen_of_leases() {
	hold --lease 3600 -j "$ascii_job"
	screen 80 "$tlock" status
	check 'text.count("\n") == 2 and all(width(line) == 80
		for line in text.splitlines())' out
	in_file "^tlock held  calibrate .*… +$holder root head .* $an_hour +0$" out
	run 0 "$tlock" revoke --grace 1800 tlock
	screen 80 "$tlock" status
	in_file "^tlock revoking calibrate .*… +$holder root head .* $half_an_hour +0$" out
	check 'all(width(line) == 80 for line in text.splitlines()[:2])' out
	let_go
}

# That less is left is no change, but that it has ended is one
test_watch_of_leases() {
	background "$tlock" status --watch -rn -o LOCK,EXPIRES >watched
	watcher=$!
	background "$tlock" status --watch >watched2
	second=$!
	until_ok in_file '^tlock $' watched
	hold --lease 3
	until_ok in_file '^tlock [0-9.]+$' watched
	until_ok in_file EXPIRES watched2
	kill -STOP "$(child_of "$holder")"
	until_ok in_file '^tlock -' watched
	until_ok in_file 'expired .* ended' watched2
	kill -INT $watcher $second
	wait $watcher $second
	[[ $(grep -c '^tlock ' watched) -eq 3 ]]
	run 0 "$tlock" revoke tlock
	ends 75 "$holder"
	was_revoked
}

### tlock status, tlock list

test_status_of_a_free_lock() {
	run 0 "$tlock" status
	[[ $(<out) == "LOCK  STATE JOB PID USER COMMAND HELD SINCE WAITERS
tlock free                                        0" ]]
	run 0 "$tlock" status --json
	check 'l["lock"] == "tlock" and l["state"] == "free" and l["waiters"] == 0 and
		all(l[c] is None for c in ("job", "pid", "user", "command", "held",
		"since", "expires", "open_in")) and l["queue"] == []' out
	run 0 "$tlock" status --json --output-all
	check 'l["uid"] is None and l["token"] is None' out
}

test_status_of_a_held_lock() {
	hold -j acq
	run 0 "$tlock" status
	[[ $(wc -l <out) -eq 2 ]]
	[[ $(tail -n 1 out) =~ ^"tlock held  acq "\ *"$holder root head "\ +[0-9]+(ms|\.[0-9]s)\ ..:..:..\ +0$ ]]
	run 0 "$tlock" status -J
	check 'l == {"lock": "tlock", "state": "held", "job": "acq", "pid": '"$holder"',
		"user": "root", "command": "head", "held": l["held"],
		"since": l["since"], "waiters": 0, "expires": None, "open_in": None,
		"queue": [], "host": None, "gate": None} and 0 < l["held"] < 60' out
	run 0 "$tlock" status -rn -o TOKEN
	is token "$(<out)"
	run 0 "$tlock" status tlock /dev/tlock --raw --noheadings -o WAITERS,job,Lock
	[[ $(<out) == "0 acq tlock"$'\n'"0 acq tlock" ]]
	"$tlock" run true &
	until_ok is waiters 1
	run 0 "$tlock" status -n -o WAITERS
	[[ $(<out) == *1 ]]
	let_go
	wait
}

# wait_for LOCK JOB [OPTION...]: wait for a lock in the background, behind all
# who wait already; $waiter is the process
wait_for() {
	local lock=/sys/class/tlock/$1 before

	read -r before <"$lock/waiters"
	"$tlock" run -d "$1" -j "$2" "${@:3}" true &
	waiter=$!
	until_ok has_waiters "$lock" $((before + 1))
}

has_waiters() {
	local value

	read -r value <"$1/waiters" && ((value == $2))
}

test_queue() {
	make_locks psu
	hold -j 'holder'
	wait_for tlock 'set "range"' -w 3600
	first=$waiter
	wait_for tlock '' -w 90.5
	second=$waiter
	run 0 "$tlock" status
	mapfile -t lines <out
	[[ ${#lines[@]} -eq 7 && ${lines[3]} == "" ]]
	[[ ${lines[4]} =~ ^"LOCK  JOB "\ +"PID USER COMMAND WAITING TIMEOUT"$ ]]
	[[ ${lines[5]} =~ ^"tlock set \"range\" "\ *$first\ root\ true\ +[0-9.]+m?s\ +1h\ 0m$ ]]
	[[ ${lines[6]} =~ ^"tlock  "\ *$second\ root\ true\ +[0-9.]+m?s\ +1m\ 30s$ ]]
	run 0 "$tlock" status --json tlock
	check 'l["waiters"] == 2 and [(q["job"], q["pid"], q["uid"], q["user"],
		q["command"], q["timeout"]) for q in l["queue"]] ==
		[("set \"range\"", '$first', 0, "root", "true", 3600),
		(None, '$second', 0, "root", "true", 90.5)]' out
	check '0 < l["queue"][1]["waiting"] < l["queue"][0]["waiting"] < 200
		and 0 < l["queue"][0]["ticket"] < l["queue"][1]["ticket"]' out
	# Programs need not skip it
	for options in -r -n; do
		run 0 "$tlock" status $options
		lacks range out
	done
	run 0 "$tlock" status -rn -o LOCK,QUEUE
	[[ $(<out) == "tlock $first,$second"$'\n'"tlock-psu " ]]
	for words in "status psu" "status --metrics" list "list --json"; do
		run 0 "$tlock" $words
		lacks range out
	done
	let_go
	wait
}

# Somebody who waits for ever, in another lock's queue and pid namespace
test_queue_of_others() {
	make_locks psu
	sysfs=/sys/class/tlock/tlock-psu
	hold -d psu
	unshare -pf --kill-child "$tlock" run -d psu -j inner true &
	until_ok has_waiters $sysfs 1
	run 0 unshare -pf --mount-proc "$tlock" status
	in_file '^tlock-psu inner  +root true +[0-9.]+m?s +never$' out
	run 0 unshare -pf --mount-proc "$tlock" status --json psu
	check 'l["queue"][0]["pid"] is None and
		l["queue"][0]["timeout"] is None' out
	run 0 unshare -pf --mount-proc "$tlock" status -rn -o QUEUE psu
	[[ $(<out) == "?" ]]
	let_go
	wait
}

# As many as people want to see
test_long_queue() {
	make_locks psu
	hold -j first
	mkfifo fifo2
	"$tlock" run -d psu head -n 1 <>fifo2 >/dev/null &
	until_ok job_is head psu
	for i in 1 2 3 4 5 6 7 8 9 10; do
		wait_for tlock "job $i"
	done
	wait_for tlock-psu other
	run 0 "$tlock" status
	in_file '^tlock +job 10 ' out
	lacks more out
	wait_for tlock 'unseen job'
	wait_for tlock 'unseen job'
	run 0 "$tlock" status
	check 'text.count("\n") == 3 + 1 + 1 + 10 + 1 + 1' out
	in_file '^tlock +and 2 more' out
	lacks unseen out
	in_file '^tlock-psu other ' out
	run 0 "$tlock" status --json tlock
	check 'len(l["queue"]) == 12' out
	let_go
	echo >fifo2
	wait
}

# Both are 63 bytes
ascii_job='calibrate the wide field camera: darks, flats and bias, run 0007'
ascii_job=${ascii_job:0:63}
wide_job='á é í 望遠鏡を校正する 望遠鏡を校正する: 007'

test_screen_of_a_queue() {
	name=usb-FTDI_FT232R_USB_UART_A5069RR4-if00-port0
	make_locks $name
	sysfs=/sys/class/tlock/tlock-$name
	hold -d $name
	wait_for tlock-$name "$ascii_job" -w 3600
	wait_for tlock-$name "$wide_job"
	screen 80 "$tlock" status
	check 'all(width(line) <= 80 for line in text.splitlines())' out
	mapfile -t lines < <(sed '1,/^$/d' out)
	[[ ${#lines[@]} -eq 4 && ${lines[1]} == tlock-$name ]]
	[[ ${lines[2]} == "     calibrate the wide "*"… "*" root true "* ]]
	[[ ${lines[3]} == "     á é í "*"… "*" root true "*" never" ]]
	screen 40 "$tlock" status
	in_file "^JOB: +$ascii_job$" out
	let_go
	wait
}

test_watch_of_a_queue() {
	hold -j one
	wait_for tlock two
	background "$tlock" status --watch >watched
	watcher=$!
	until_ok in_file '^tlock two ' watched
	wait_for tlock three
	until_ok in_file '^tlock three ' watched
	kill -INT $watcher
	wait $watcher
	# A longer time alone is no change
	[[ $(grep -c '^tlock three ' watched) -eq 1 ]]
	background "$tlock" status --watch --json >watched
	watcher=$!
	until_ok in_file '"job":"three"' watched
	wait_for tlock four
	until_ok in_file '"job":"four"' watched
	kill -INT $watcher
	wait $watcher
	[[ $(grep -c '"job":"four"' watched) -eq 1 ]]
	terminal "$tlock" status --watch
	until_ok redrawn 3
	printf '\003' >&5
	finish 0
	let_go
	wait
}

held_longer_than() {
	(($(<"$sysfs/held_ns") > $1 * 1000000000))
}

test_since() {
	hold
	# In a time zone where it is about noon now
	TZ=XXX$(($(date -u +%-H) - 12)) run 0 "$tlock" status -n -o SINCE
	[[ $(<out) =~ ^1[12]:[0-5][0-9]:[0-5][0-9]$ ]]
	until_ok held_longer_than 2
	# In a time zone where it is midnight now, two seconds after the grant
	TZ=XXX$(date -u +%H:%M:%S) run 0 "$tlock" status -n -o SINCE
	[[ $(<out) =~ ^[A-Z][a-z][a-z]\ [\ 1-3][0-9]\ 23:59$ || $(<out) == *-12-31 ]]
	for options in -J -r; do
		TZ=XXX-05:30 run 0 "$tlock" status $options -o HELD,SINCE
		in_file '[0-9]T[0-9]+:[0-9]+:[0-9]+\+05:30' out
	done
	for zone in XXX-05:30 XXX03:00 UTC; do
		TZ=$zone run 0 "$tlock" status -J -o HELD,SINCE
		check '-1 < time.time() - l["held"] - seconds(l["since"]) < 30' out
	done
	# The same each time, although it is computed from two clocks
	for _ in {1..20}; do
		"$tlock" status -rn -o SINCE
	done >out
	[[ $(sort -u out | wc -l) -eq 1 ]]
	let_go
}

# state WORD NOTE: the table shows this state, and this note on the holder
state() {
	run 0 "$tlock" status
	in_file "^tlock $1 " out
	[[ $(sed 1,2d out) == $'\n'"tlock: holder $2" ]]
	run 0 "$tlock" status -J
	check 'l["state"] == "'"$1"'"' out
	# Output for programs has no notes
	for options in -J -r -n; do
		run 0 "$tlock" status $options
		[[ $(<out) != *holder* ]]
	done
}

test_holder_stopped() {
	hold
	kill -STOP "$holder"
	until_ok stopped "$holder"
	state stopped "is stopped; 'kill -CONT $holder' continues it"
	kill -CONT "$holder"
	run 0 "$tlock" status
	in_file '^tlock held ' out
	let_go
}

# trace PID: stop it as a debugger does; $tracer is the process
trace() {
	/usr/bin/python3 -c '
import ctypes, os, sys, time
PTRACE_ATTACH = 16
ctypes.CDLL(None).ptrace(PTRACE_ATTACH, int(sys.argv[1]), None, None)
os.waitpid(int(sys.argv[1]), 0)
print(flush=True)
time.sleep(1000)' "$1" >traced &
	tracer=$!
	until_ok test -s traced
}

test_holder_traced() {
	hold
	trace "$holder"
	state traced "(PID $holder) is stopped by a debugger"
	kill "$tracer"
	let_go
}

# freeze PID...: freeze these processes, until thaw
freeze() {
	if [[ ! -e /sys/fs/cgroup/cgroup.procs ]]; then
		mount -t cgroup2 none /sys/fs/cgroup
		trap 'umount /sys/fs/cgroup' EXIT
	fi
	mkdir /sys/fs/cgroup/ice
	for pid; do
		echo "$pid" >/sys/fs/cgroup/ice/cgroup.procs
	done
	echo 1 >/sys/fs/cgroup/ice/cgroup.freeze
	until_ok in_file 'frozen 1' /sys/fs/cgroup/ice/cgroup.events
}

# thaw: and remove the control group, once its processes have ended
thaw() {
	echo 0 >/sys/fs/cgroup/ice/cgroup.freeze
	"$@"
	until_ok rmdir /sys/fs/cgroup/ice
}

test_holder_frozen() {
	hold
	freeze "$holder"
	state frozen "(PID $holder) is frozen, with its container or control group"
	thaw let_go
}

# grant PROGRAM: PROGRAM runs with a file that has the lock, but whose grant
# nobody fetches
grant() {
	/usr/bin/python3 -c '
import fcntl, os, sys, time
sys.path.insert(0, sys.argv[1])
from tlock import _device
lock = _device.Contender("/dev/tlock", os.O_RDWR)
with open("/dev/tlock", "r+b", 0) as first:
    fcntl.flock(first, fcntl.LOCK_EX)
    lock.argument.timeout_ns = -1
    lock.argument.flags = _device.ASYNC
    try:
        fcntl.ioctl(lock.fd, _device.ACQUIRE, lock.argument)
    except OSError as error:
        assert error.errno == _device.errno.EINPROGRESS
'"$1" "$top/userlib/python" >granted &
	holder=$!
	until_ok test -s granted
}

test_holder_granted() {
	grant '
print(flush=True)
time.sleep(1000)'
	state granted "(PID $holder) has not fetched its grant yet: its event loop is busy"
	# This says why
	kill -STOP "$holder"
	until_ok stopped "$holder"
	state stopped "is stopped; 'kill -CONT $holder' continues it"
	kill -9 "$holder"
	wait "$holder" || :
	not_abandoned
}

test_holder_granted_and_ended() {
	grant '
parent = os.getpid()
if os.fork():
    os._exit(0)
while os.getppid() == parent:
    pass
print(os.getpid(), flush=True)
time.sleep(1000)'
	state ended "ended, file still open in PID $(<granted) (python3)"
	kill "$(<granted)"
}

dumping() {
	in_file '^CoreDumping:.*1' "/proc/$1/status"
}

test_holder_dumping() {
	local pattern

	pattern=$(</proc/sys/kernel/core_pattern)
	# This helper reads nothing, so the core dump does not end
	printf '|%s 7654' "$(command -v sleep)" >/proc/sys/kernel/core_pattern
	hold_raw dumper core
	kill -SEGV "$holder"
	until_ok dumping "$holder"
	echo "$pattern" >/proc/sys/kernel/core_pattern
	state dumping "(PID $holder) is writing a core dump, and ends after that"
	kill "$(pgrep -fx '.*sleep 7654')"
	wait "$holder" || :
	is_abandoned
}

test_holder_ended() {
	local child nobody='setpriv --reuid 65534 --regid 65534 --clear-groups'

	hold -j instrument
	# No newline at its end
	read -r child <"/proc/$holder/task/$holder/children" || :
	kill -9 "$holder"
	wait "$holder" || :
	state ended "ended, file still open in PID $child (head)"
	run 0 "$tlock" status -J
	check 'l["pid"] is None and l["open_in"] == ['"$child"']' out
	run 0 "$tlock" status -rn -o OPEN-IN
	[[ $(<out) == "$child" ]]
	run 0 "$tlock" list -n
	in_file ' ended +0$' out

	run 0 $nobody "$tlock" status
	[[ $(tail -n 1 out) == "tlock: holder ended; root may see who has its file" ]]
	run 0 $nobody "$tlock" status -J
	check 'l["open_in"] == []' out

	# Where neither the holder nor anybody else with the file has a pid
	run 0 unshare --fork --pid --mount-proc "$tlock" status
	in_file '^tlock held ' out
	[[ $(tail -n 1 out) == "tlock: holder ended or is in another container; no process here has its file" ]]
	echo >fifo
	is_abandoned
}

test_many_have_the_file() {
	"$tlock" run bash -c 'for i in {1..10}; do sleep 1000 & done
		echo $! >last; exec sleep 1000' &
	holder=$!
	until_ok test -s last
	kill -9 "$holder"
	wait "$holder" || :
	run 0 "$tlock" status -J
	check 'len(l["open_in"]) == 11 and '"$(<last)"' in l["open_in"]' out
	mapfile -t pids < <("$tlock" status -rn -o OPEN-IN | tr , '\n')
	run 0 "$tlock" status
	in_file '^tlock: holder ended, file still open in PID ([0-9]+ \([a-z]+\), ){7}[0-9]+ \([a-z]+\) and 3 more$' out
	kill "${pids[@]}"
	is_abandoned
}

# A status command that inherits the file from its shell is not reported
test_looking_with_the_file() {
	run 137 "$tlock" run bash -c 'kill -9 $PPID
		while [[ $(</sys/class/tlock/tlock/pid) ]]; do :; done
		"$0" status -rn -o OPEN-IN >looked
		echo $$ >self' "$tlock"
	until_ok test -s self
	[[ $(<looked) == "$(<self)" ]]
	is_abandoned
}

# The file of a holder that has ended is in flight in a socket
test_nobody_has_the_file() {
	/usr/bin/python3 -c '
import array, fcntl, os, socket, sys, time
left, right = socket.socketpair()
if not os.fork():
    lock = os.open("/dev/tlock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    left.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                           array.array("i", [lock]))])
    os._exit(0)
os.wait()
print(flush=True)
time.sleep(1000)' >sent &
	until_ok test -s sent
	state ended "ended; no process here has its file"
	run 0 "$tlock" status -J
	check 'l["open_in"] == []' out
	run 0 "$tlock" revoke tlock
	[[ $(head -n 1 out) == "/dev/tlock: held by python3 (ended or not visible from here, user root) for "* ]]
	is token 0
	was_revoked
	kill $!
}

test_held_longer() {
	run 0 "$tlock" status --held-longer 0
	[[ ! -s out && ! -s err ]]
	hold -j acq
	until_ok held_longer_than 2
	for time in 0 1 1s 1.5s 0.02m 0.0005h 0.00002d; do
		run 1 "$tlock" status --held-longer $time
		in_file "^tlock held +acq +$holder " out
	done
	run 1 "$tlock" status --held-longer=1 -n -o LOCK,JOB tlock
	[[ $(<out) == "tlock acq" ]]
	for time in 3600 3600s 60m 1h 1d 1.5d 1000000000000d; do
		run 0 "$tlock" status --held-longer $time
		[[ ! -s out && ! -s err ]]
	done
	run 0 "$tlock" status --json --held-longer 1h
	check 'j == {"locks": []}' out
	run 66 "$tlock" status -n -o LOCK --held-longer 1 nosuch tlock
	[[ $(<out) == tlock ]]
	let_go
}

test_metrics() {
	hold_raw reader $'"q" \\ \\x41 \xc3\xa9 \xff'
	"$tlock" run true &
	until_ok is waiters 1
	run 0 "$tlock" status --metrics tlock /dev/tlock
	[[ ! -s err ]]
	labels='lock="tlock",job="\"q\" \\ \\x5cx41 é \\xff"'
	for line in "tlock_held{$labels} 1" "tlock_waiters{lock=\"tlock\"} 1" \
		"tlock_acquired_total{lock=\"tlock\"} $(<$sysfs/stats/acquired)" \
		"tlock_abandoned_total{lock=\"tlock\"} $(<$sysfs/stats/abandoned)" \
		"tlock_revoked_total{lock=\"tlock\"} $(<$sysfs/stats/revoked)"; do
		[[ $(grep -cxF "$line" out) -eq 1 ]]
	done
	check 'abs(float(re.findall(r"^tlock_held_seconds{.*} (\d+\.\d{9})$", text,
		re.M)[0]) * 1e9 - '"$(<$sysfs/held_ns)"') < 60e9' out
	check 'round(float(re.findall(r"^tlock_hold_seconds_total{.*} (.*)$", text,
		re.M)[0]) * 1e9) == '"$(<$sysfs/stats/hold_ns_total)" out
	# Each family has one sample, in OpenMetrics' order
	check 're.fullmatch(r"(# TYPE (\w+) gauge\n(# UNIT \2 seconds\n)?# HELP \2 .*\n"
		r"\2{lock=\"tlock\"(,job=\".*\")?} \d+(\.\d+)?\n|"
		r"# TYPE (\w+) counter\n(# UNIT \6 seconds\n)?# HELP \6 .*\n"
		r"\6_total{lock=\"tlock\"} \d+(\.\d+)?\n){14}"
		r"# TYPE (\w+) histogram\n# UNIT \9 seconds\n# HELP \9 .*\n"
		r"(\9_bucket{lock=\"tlock\",le=\"[+\w.]+\"} \d+\n){7}"
		r"\9_count{lock=\"tlock\"} \d+\n"
		r"\9_sum{lock=\"tlock\"} \d+\.\d{9}\n# EOF\n", text)' out
	check 'all(("_seconds" in name) == bool(unit) for name, unit in
		re.findall(r"# TYPE (\w+) .*\n(# UNIT)?", text))' out
	let_go
	wait
	run 0 "$tlock" status --metrics
	in_file '^tlock_held\{lock="tlock",job=""} 0$' out
	in_file '^tlock_held_seconds\{lock="tlock",job=""} 0\.0+$' out
	run 66 "$tlock" status --metrics nosuch
	[[ $(tail -n 1 out) == '# EOF' ]]
}

# How many waited up to 1 ms, 10 ms, ... and in all
metrics_waits() {
	"$tlock" status --metrics |
		sed -n 's/^tlock_wait_duration_seconds_\(bucket\|count\).* //p'
}

test_metrics_of_waits() {
	read -ra old < <(metrics_waits | xargs)
	hold
	run 1 "$tlock" run --timeout 0.5 true
	run 1 "$tlock" run --timeout 0.02 true
	run 1 "$tlock" run --nonblock true
	read -ra new < <(metrics_waits | xargs)
	let_go
	[[ ${#new[@]} -eq 8 && ${new[6]} -eq ${new[7]} ]]
	# Each counts what those before it count, too
	read -ra waits <$sysfs/stats/waits
	for i in 0 1 2 3 4 5 6; do
		sum=$((${sum:-0} + waits[i]))
		[[ $sum -eq ${new[i]} ]]
	done
	# The longer one took no more than 10 s, and neither 10 ms or less
	[[ ${new[4]} -eq $((old[4] + 2)) ]]
	[[ ${new[1]} -eq ${old[1]} ]]
	[[ ${new[7]} -eq $((old[7] + 2)) ]]
	run 0 "$tlock" status --metrics
	check 'float(re.findall(r"^tlock_wait_duration_seconds_sum.* (.*)$", text,
		re.M)[0]) > 0.52' out
	# An older module
	mount -t tmpfs none "$sysfs/stats"
	run 0 "$tlock" status --metrics
	umount "$sysfs/stats"
	[[ ! -s err ]]
	check '"tlock_wait_duration_seconds_" not in text and
		"tlock_wait_seconds_total" in text' out
}

# In a time namespace whose clock began after the grant
test_held_since_before_the_clock() {
	hold
	until_ok held_longer_than 2
	read -r uptime _ </proc/uptime
	run 0 unshare --fork --time --monotonic -"${uptime%.*}" \
		"$tlock" status --json
	check '2 < l["held"] < 600 and
		abs(seconds(l["since"]) + l["held"] - time.time()) < 30' out
	run 0 unshare --fork --time --monotonic -"${uptime%.*}" "$tlock" status
	[[ $(tail -n 1 out) =~ \ ([2-9]|[1-9][0-9]+)(\.[0-9]s|m\ [0-9]+s)\  ]]
	run 1 unshare --fork --time --monotonic -"${uptime%.*}" \
		"$tlock" run -n echo never
	in_file ' for ([2-9]|[1-9][0-9]+)\.[0-9]s$| for [0-9]+m ' err
	let_go
}

test_columns() {
	run 0 "$tlock" status -r -o lock,timed-out
	[[ $(head -n 1 out) == "LOCK TIMED-OUT" ]]
	run 0 "$tlock" status -r -o +STATE,UID
	[[ $(head -n 1 out) == "LOCK STATE JOB PID USER COMMAND HELD SINCE WAITERS STATE UID" ]]
	run 0 "$tlock" list -r -o +HOLD-MAX
	[[ $(head -n 1 out) == "LOCK STATE WAITERS HOLD-MAX" ]]
	printf -v many 'LOCK,%.0s' {1..60}
	for list in nosuch '' 'LOCK,' ',LOCK' 'LOCK,,PID' + LOCK,+PID "${many}LOCK"; do
		run 64 "$tlock" status -o "$list"
		[[ ! -s out && -s err ]]
	done
	# All columns, in the order of --help
	"$tlock" status --help |
		sed -n '/^Columns/,/^$/s/^ *\([A-Z-]*\)  .*/\1/p' >help
	run 0 "$tlock" status -r --output-all
	[[ $(head -n 1 out) == "$(paste -sd ' ' help)" ]]
	[[ $(wc -l <help) -eq 28 ]]
}

test_counters() {
	hold
	run 1 "$tlock" run -w 0.1 true
	let_go
	run 0 "$tlock" status --json --output-all
	for counter in acquired contended timed_out interrupted abandoned revoked \
		yielded; do
		check "l['$counter'] == $(<$sysfs/stats/$counter)" out
	done
	for counter in wait_total wait_max hold_total hold_max; do
		check "round(l['$counter'] * 1e9) == $(<$sysfs/stats/${counter/_/_ns_})" out
	done
	check 'l["wait_max"] >= 0.1 and l["timed_out"] >= 1' out
}

test_list() {
	run 0 "$tlock" list
	[[ $(<out) == "LOCK  STATE WAITERS"$'\n'"tlock free        0" ]]
	hold
	run 0 "$tlock" list --json
	check 'l == {"lock": "tlock", "path": "/dev/tlock", "state": "held", "waiters": 0}' out
	let_go
	run 64 "$tlock" list tlock
	[[ ! -s out ]]
}

test_no_such_lock() {
	run 66 "$tlock" status -rn -o LOCK nosuch tlock /dev/null
	[[ $(<out) == tlock ]]
	in_file '^tlock: /dev/tlock-nosuch: no such lock' err
	in_file '^tlock: /dev/null: not a tlock' err
	run 66 "$tlock" status --json nosuch
	check 'j == {"locks": []}' out
}

test_bad_usage_of_tables() {
	for options in "--json --raw" "--watch --held-longer 1" "--metrics -J" \
		"--metrics --raw" "--metrics -n" "--metrics -o LOCK" \
		"--metrics --output-all" "--metrics --watch" \
		"--metrics --held-longer 1"; do
		run 64 "$tlock" status $options
		[[ ! -s out ]]
		in_file '^tlock: mutually exclusive: --[a-z]+ --[a-z]+' err
	done
	for time in x 1x '' . 1.2.3 -1 m 1mm ' 1' 0x10 inf nan 1m30s; do
		run 64 "$tlock" status --held-longer "$time"
		[[ ! -s out ]]
		in_file "^tlock: invalid time: '$time' " err
	done
	for option in --metrics --held-longer; do
		run 64 "$tlock" list $option 1
	done
	for subcommand in status list; do
		run 64 "$tlock" $subcommand --json --raw
		for option in --nosuch -o --output -w; do
			run 64 "$tlock" $subcommand $option
			in_file "^Try 'tlock $subcommand --help' for more" err
		done
	done
}

test_escapes_what_is_not_utf8() {
	hold_raw $'a\xff\n\e[2J\xc2\x9b\\x41' \
		$'"q" \\ \\x41 \xc3\xa9 \xff\xc3 \xed\xa0\x80 \xf5'
	job='"q" \ \x5cx41 é \xff\xc3 \xed\xa0\x80 \xf5'
	comm='a\xff\x0a\x1b[2J\xc2\x9b\x5cx41'

	run 0 "$tlock" status --json -o JOB,COMMAND
	check 'printable(text)' out
	check "l['job'] == r'''$job''' and l['command'] == r'''$comm'''" out

	run 0 "$tlock" status -n -o JOB,COMMAND
	check 'printable(text)' out
	[[ $(<out) == "$job $comm" ]]

	run 0 "$tlock" status -n -r -o JOB,COMMAND
	check 'printable(text)' out
	check '[re.sub(rb"\\x(..)", lambda m: bytes.fromhex(m[1].decode()), cell)
		for cell in text.encode().split()] ==
		[b"\"q\" \\ \\x41 \xc3\xa9 \xff\xc3 \xed\xa0\x80 \xf5",
		 b"a\xff\n\x1b[2J\xc2\x9b\\x41"]' out

	LC_ALL=C run 0 "$tlock" status -n -o JOB,COMMAND
	[[ ! $(<out) =~ [^[:ascii:]] ]]
	LC_ALL=C run 0 "$tlock" status --json -o JOB,COMMAND
	check '"é" in l["job"]' out

	run 1 "$tlock" run -n true
	check 'printable(text)' err
	[[ $(<err) == "tlock: /dev/tlock: held by job '$job' ($comm, pid $holder, user root) for "* ]]
	let_go
}

lines_of() {
	[[ $(wc -l <"$2") -ge $1 ]]
}

test_watch() {
	background "$tlock" status --watch -rn -o LOCK,JOB,HELD >watched
	watcher=$!
	until_ok in_file '^tlock  $' watched
	hold -j one
	until_ok in_file '^tlock one ' watched
	let_go
	hold -j two
	until_ok in_file '^tlock two ' watched
	kill -INT $watcher
	wait $watcher
	let_go
	# One block for each state, with an empty line in between
	[[ $(grep -c 'one' watched) -eq 1 && $(grep -c 'two' watched) -eq 1 ]]
	[[ $(sed -n 2p watched) == "" ]]
	# A new holder is a change, even if only its time is shown
	for column in HELD SINCE; do
		hold
		background "$tlock" status --watch -rn -o $column >watched
		watcher=$!
		until_ok test -s watched
		let_go
		# A time, nothing, and an empty line in between
		until_ok lines_of 3 watched
		hold
		until_ok lines_of 5 watched
		let_go
		kill -INT $watcher
		wait $watcher
	done
	background "$tlock" list --watch --json >watched
	until_ok in_file '^}$' watched
	kill -TERM $!
	wait $!
	check 'l["state"] == "free"' watched
}

# redrawn N: the screen was redrawn at least N times
redrawn() {
	local screens

	mapfile -t screens < <(grep -aE $'^\e\\[H\e\\[JLOCK ' seen)
	((${#screens[@]} >= $1))
}

test_watch_on_a_terminal() {
	hold -j one
	terminal "$tlock" status --watch
	until_ok in_file '^tlock +held +one ' seen
	# The holding time is updated
	until_ok redrawn 3
	printf '\003' >&5
	finish 0
	let_go
}

# screen COLUMNS COMMAND...: run it on a terminal of 24 lines; its output goes
# to out
screen() {
	script -qefc "stty cols $1 rows 24; $(printf '%q ' "${@:2}")" /dev/null \
		</dev/null | tr -d '\r' >out
}

test_screen_of_a_long_job() {
	hold -j "$ascii_job"
	screen 80 "$tlock" status
	check 'text.count("\n") == 2 and all(width(line) == 80
		for line in text.splitlines())' out
	[[ $(<out) =~ $'\n'"tlock held  calibrate the wide "[a-z\ ]*"… "\ *$holder\ root\ head\ .*\ 0$ ]]
	LC_ALL=C screen 80 "$tlock" status
	check 'text.count("\n") == 2 and all(width(line) == 80
		for line in text.splitlines())' out
	[[ $(<out) =~ $'\n'"tlock held  calibrate the wide "[a-z\ ]*"... "\ *$holder\  ]]
	# On a terminal with enough room
	screen 140 "$tlock" status
	in_file " $ascii_job +$holder " out
	# Not on a terminal
	run 0 "$tlock" status
	in_file " $ascii_job +$holder " out
	# Output for programs is never cut
	for options in -r -J; do
		screen 80 "$tlock" status $options
		in_file "run.*0007?" out || in_file 'bias' out
	done
	let_go
}

test_screen_of_a_wide_job() {
	[[ $(printf %s "$wide_job" | wc -c) -eq 63 ]]
	hold -j "$wide_job"
	for columns in 80 79 78 77; do
		screen $columns "$tlock" status
		# If a wide character does not fit, one column is left empty
		check 'text.count("\n") == 2 and all('$columns' - 1 <= width(line) <=
			'$columns' for line in text.splitlines())' out
		[[ $(<out) =~ $'\n'"tlock held  á é í 望遠鏡"[^\ ]*\ ?[^\ ]*"… "\ *$holder\  ]]
	done
	LC_ALL=C screen 80 "$tlock" status
	in_file '^tlock held  \\xc3\\xa1 .*\.\.\. [0-9]+ root ' out
	check 'text.isascii() and all(width(line) <= 80
		for line in text.splitlines())' out
	let_go
}

test_screen_of_twenty_locks() {
	mapfile -t locks < <(yes tlock | head -n 20)
	hold -j "$ascii_job"
	screen 80 "$tlock" status "${locks[@]}"
	check 'text.count("\n") == 21 and text.count("\ntlock held  calibrate ") == 20
		and all(width(line) == 80 for line in text.splitlines())' out
	let_go
}

test_screen_of_all_columns() {
	hold -j "$ascii_job"
	screen 80 "$tlock" status --output-all
	check 'text.count("\n") == 28 and all(re.match("[A-Z-]+: ", line)
		and width(line) <= 80 for line in text.splitlines())' out
	in_file "^JOB: +$ascii_job$" out
	in_file "^PID: +$holder$" out
	[[ $(tail -n 1 out) == "HOLD-MAX: "* ]]
	screen 80 "$tlock" status --output-all tlock tlock
	check 'text.count("\n\nLOCK: ") == 1 and text.count("\n") == 57' out
	screen 40 "$tlock" status
	in_file "^JOB: +$ascii_job$" out
	# A table if this is not a terminal, or without headings
	screen 80 "$tlock" status --output-all -n
	[[ $(wc -l <out) -eq 1 ]]
	run 0 "$tlock" status --output-all
	[[ $(wc -l <out) -eq 2 ]]
	let_go
}

test_watch_has_more_than_a_screen() {
	mapfile -t locks < <(yes tlock | head -n 30)
	hold -j one
	terminal sh -c 'stty cols 80 rows 24; exec "$0" status --watch "$@"' \
		"$tlock" "${locks[@]}"
	until_ok redrawn 3
	printf '\003' >&5
	finish 0
	tr -d '\r' <seen >screens
	check 'all(s.count("\n") == 22 and s.endswith("\n(10 more lines)\n")
		for s in text.split("\x1b[H\x1b[J")[1:-1])' screens

	# The note on a stopped holder is not among the lines left out
	kill -STOP "$holder"
	until_ok stopped "$holder"
	terminal sh -c 'stty cols 80 rows 24; exec "$0" status --watch "$@"' \
		"$tlock" "${locks[@]}"
	until_ok redrawn 3
	printf '\003' >&5
	finish 0
	tr -d '\r' <seen >screens
	check 'all(s.count("\n") == 22 and "\n(22 more lines)\n\n" in s and
		"\ntlock: holder is stopped" in s and s.endswith("\n(20 more lines)\n")
		for s in text.split("\x1b[H\x1b[J")[1:-1])' screens
	kill -CONT "$holder"
	let_go
}

test_watch_leaves_the_prompt_alone() {
	terminal sh -c 'trap : INT; "$0" status --watch; printf "prompt> "' "$tlock"
	# All of it: the terminal drops what nobody has read yet when it gets ^C
	until_ok in_file '^tlock free .* 0.$' seen
	printf '\003' >&5
	finish 0
	tr -d '\r' <seen >screens
	# It sends the signal first, and echoes ^C then
	check 're.search(r" 0\n(\^C)?\n(\^C)?prompt> $", text)' screens
}

test_full_disk() {
	for words in status list --help --version "run --help" "status --watch" \
		"status --metrics"; do
		status=0
		"$tlock" $words >/dev/full 2>err || status=$?
		cat err
		[[ $status -eq 74 ]]
		in_file '^tlock: write error: No space left' err
	done
}

### Named locks

# refused STATUS MESSAGE COMMAND...: it fails so, and this is all it says
refused() {
	local message=$2

	run "$1" "${@:3}"
	[[ ! -s out && $(<err) == "tlock: $message" ]]
}

nobody='setpriv --reuid 65534 --regid 65534 --clear-groups'
names='names have 1 to 121 of A-Z a-z 0-9 # + - . : = @ _, and begin with a letter or digit, but not with tlock-'

test_create_and_delete() {
	printf -v longest %0121d 0
	run 0 "$tlock" create psu tlock-stage /dev/tlock-lamp "$longest" 'a#b+c.d:e=f@g_h'
	[[ ! -s out && ! -s err ]]
	for lock in psu stage lamp "$longest" 'a#b+c.d:e=f@g_h'; do
		[[ -c /dev/tlock-$lock ]]
		run 0 "$tlock" run -d "$lock" -w 0 cat "/sys/class/tlock/tlock-$lock/job"
		[[ $(<out) == cat ]]
	done
	run 0 "$tlock" delete /dev/tlock-psu stage tlock-lamp "$longest" 'a#b+c.d:e=f@g_h'
	[[ ! -s out && ! -s err ]]
	run 0 "$tlock" list -n -o LOCK
	[[ $(<out) == tlock ]]
}

# What was asked for is there afterwards: scripts need not look first
test_create_what_exists() {
	make_locks psu
	mkfifo held
	"$tlock" run -d psu -n cat <>held >/dev/null &
	until_ok job_is cat psu
	refused 0 "/dev/tlock-psu exists already" "$tlock" create psu
	refused 0 "/dev/tlock exists already" "$tlock" create tlock
	run 1 "$tlock" run -d psu -n echo never
	kill $!
	wait $! || :
}

test_create_tries_all() {
	run 64 "$tlock" create psu 'a b' stage .c ''
	[[ $(wc -l <err) -eq 3 && -c /dev/tlock-psu && -c /dev/tlock-stage ]]
	run 66 "$tlock" delete psu nosuch stage
	[[ $(wc -l <err) -eq 1 && ! -e /dev/tlock-psu && ! -e /dev/tlock-stage ]]
	printf -v too_long %0122d 0
	for name in 'a b' é .psu -- -psu tlock-tlock-psu tlock-tlock $'psu\n' \
		/dev/tlock- psu/2 ./psu /tmp/tlock-psu "$too_long" ''; do
		for subcommand in create delete; do
			[[ $name != -- ]] || continue
			run 64 "$tlock" $subcommand -- "$name"
			[[ ! -s out && $(wc -l <err) -ge 1 ]]
		done
	done
	refused 64 "/dev/tlock-a b: no lock can have this name: $names" \
		"$tlock" create 'a b'
	refused 64 "/tmp/psu: a lock is created and deleted by its name: NAME for /dev/tlock-NAME" \
		"$tlock" create /tmp/psu
	[[ $(echo /dev/tlock*) == /dev/tlock ]]
}

test_create_refused() {
	for subcommand in create delete; do
		refused 77 "permission denied: only root may $subcommand locks" \
			$nobody "$tlock" $subcommand psu
		refused 77 "/sys/class/tlock is read-only, as in a container: $subcommand the lock on its host" \
			unshare -m sh -c 'mount -o remount,ro,bind /sys; exec "$@"' \
			sh "$tlock" $subcommand psu
	done
	run 71 "$tlock" create $(seq 4096)
	[[ $(<err) == "tlock: /dev/tlock-4096: there are as many locks as the module allows: "* ]]
	# More than the files that it may open
	(
		ulimit -n 64
		run 0 "$tlock" status -rn -o LOCK
	)
	[[ $(<out) == tlock$'\n'"$(seq -f tlock-%.0f 4095)" ]]
	run 0 "$tlock" delete $(seq 4095)
}

test_delete_refused() {
	make_locks psu
	refused 64 "/dev/tlock is the first lock, which exists as long as the module is loaded" \
		"$tlock" delete tlock
	refused 66 "/dev/tlock-nosuch: no such lock: 'tlock list' shows those that there are" \
		"$tlock" delete nosuch
	# A file to look only, and one of another lock, are not in the way
	exec 6<>/dev/tlock-psu
	exec 5</dev/tlock-psu 4<>/dev/tlock
	refused 75 "/dev/tlock-psu is in use by PID $BASHPID (command.sh)" \
		"$tlock" delete psu 6>&- 5<&-
	/usr/bin/python3 -c '
import array, os, socket, sys, time
left, right = socket.socketpair()
lock = os.open("/dev/tlock-psu", os.O_RDWR)
left.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                       array.array("i", [lock]))])
os.close(lock)
print(flush=True)
time.sleep(1000)' >sent 6>&- 5<&- &
	until_ok test -s sent
	exec 6>&-
	refused 75 "/dev/tlock-psu is in use by a process that cannot be seen from here, or a file on its way through a socket" \
		"$tlock" delete psu
	kill $!
	wait $! || :
	run 0 "$tlock" delete psu
	run 66 "$tlock" status psu
	exec 5<&- 4>&-
}

# Two acquisitions, neither of which ever lets others in, with a lock each
test_locks_are_independent() {
	make_locks psu stage
	hold -j acq
	for lock in psu stage; do
		mkfifo $lock
		"$tlock" run -d $lock -j "$lock job" head -n 1 <>$lock >/dev/null &
		until_ok job_is "$lock job" $lock
	done
	for lock in psu stage; do
		run 1 "$tlock" run -d $lock -n echo never
		in_file "^tlock: /dev/tlock-$lock: held by job '$lock job' " err
	done
	run 0 "$tlock" status
	in_file '^tlock +held +acq ' out
	in_file '^tlock-psu +held +psu job ' out
	in_file '^tlock-stage +held +stage job ' out
	run 0 "$tlock" status -rn -o LOCK,JOB stage tlock
	[[ $(<out) == 'tlock-stage stage\x20job'$'\n''tlock acq' ]]
	run 0 "$tlock" status --json
	check '[(l["lock"], l["job"]) for l in j["locks"]] ==
		[("tlock", "acq"), ("tlock-psu", "psu job"), ("tlock-stage", "stage job")]' out
	for lock in psu stage; do
		echo >$lock
	done
	let_go
	wait
}

test_default_lock() {
	make_locks psu stage
	export TLOCK=psu
	job='cat /sys/class/tlock/tlock{,-psu,-stage}/job; echo "<$TLOCK>"'
	SHELL=/bin/bash run 0 "$tlock" run -j mine -c "$job"
	[[ $(<out) == $'\nmine\n\n<psu>' ]]
	SHELL=/bin/bash run 0 "$tlock" run -d stage -j mine -c "$job"
	[[ $(<out) == $'\n\nmine\n<psu>' ]]
	SHELL=/bin/bash run 0 "$tlock" run -j mine /dev/tlock -c "$job"
	[[ $(<out) == $'mine\n\n\n<psu>' ]]
	for TLOCK in tlock-psu /dev/tlock-psu; do
		SHELL=/bin/bash run 0 "$tlock" run -j mine -c "$job"
		[[ $(<out) == $'\nmine\n\n'"<$TLOCK>" ]]
	done
	for TLOCK in '' tlock /dev/tlock; do
		SHELL=/bin/bash run 0 "$tlock" run -j mine -c "$job"
		[[ $(<out) == $'mine\n\n\n'"<$TLOCK>" ]]
	done
	TLOCK=psu,stage
	run 66 "$tlock" run echo never
	[[ $(<err) == "tlock: TLOCK=psu,stage: this lists several locks, but only Python takes a list: name one of them" ]]
	TLOCK=nosuch
	run 66 "$tlock" run echo never
	in_file "^tlock: /dev/tlock-nosuch: no such lock: .* 'tlock create nosuch'" err
	# The others are about all locks, or about those that they name
	for words in "status -rn -o LOCK" "list -rn -o LOCK"; do
		run 0 "$tlock" $words
		[[ $(<out) == $'tlock\ntlock-psu\ntlock-stage' ]]
	done
	run 64 "$tlock" create
	run 64 "$tlock" delete
}

test_order_of_locks() {
	make_locks psu10 psu9 stage B psu2 a psu
	run 0 "$tlock" status -rn -o LOCK
	[[ $(<out) == "$(printf '%s\n' tlock tlock-{B,a,psu,psu2,psu9,psu10,stage})" ]]
	[[ $(<out) == "$(cd /dev && ls -v tlock*)" ]]
	run 0 "$tlock" list -rn -o LOCK,PATH
	[[ $(tail -n 1 out) == "tlock-stage /dev/tlock-stage" ]]
	run 0 "$tlock" status -rn -o LOCK stage psu9 psu10
	[[ $(<out) == "$(printf 'tlock-%s\n' stage psu9 psu10)" ]]
}

test_metrics_of_many() {
	make_locks psu stage
	hold
	run 0 "$tlock" status --metrics
	for lock in tlock tlock-psu tlock-stage; do
		[[ $(grep -c "^tlock_[a-z_]*{lock=\"$lock\"[,}]" out) -eq 23 ]]
	done
	in_file '^tlock_held\{lock="tlock",job="head"} 1$' out
	in_file '^tlock_held\{lock="tlock-psu",job=""} 0$' out
	check 'text.count("# TYPE") == 15' out
	run 0 "$tlock" status --metrics stage psu /dev/tlock-stage psu tlock-psu
	[[ $(grep '^tlock_waiters' out) == $'tlock_waiters{lock="tlock-stage"} 0\ntlock_waiters{lock="tlock-psu"} 0' ]]
	let_go
}

# Looking at all locks while others create and delete some
test_locks_vanish() {
	make_locks last
	(
		set +x
		while [[ ! -e stop ]]; do
			for name in a b c d e f g h; do
				echo $name >/sys/class/tlock/new_lock
			done
			for name in h g f e d c b a; do
				echo $name >/sys/class/tlock/delete_lock
			done
		done
		: >stopped
	) &
	for _ in {1..20}; do
		for words in "status -rn -o LOCK" "list -rn -o LOCK"; do
			run 0 "$tlock" $words
			[[ ! -s err && $(head -n 1 out) == tlock ]]
			[[ $(tail -n 1 out) == tlock-last ]]
		done
	done
	: >stop
	wait $!
	[[ -e stopped ]]
}

test_watch_of_a_lock_that_is_deleted() {
	make_locks psu
	"$tlock" status --watch -n -o LOCK >watched &
	all=$!
	"$tlock" status --watch -n -o LOCK psu >watched2 2>watched-err &
	one=$!
	until_ok in_file '^tlock-psu$' watched
	until_ok in_file '^tlock-psu$' watched2
	run 0 "$tlock" delete psu
	status=0
	wait $one || status=$?
	[[ $status -eq 66 ]]
	in_file "^tlock: /dev/tlock-psu: no such lock: .*'tlock create psu'" watched-err
	make_locks stage
	until_ok in_file '^tlock-stage$' watched
	[[ $(sort -u watched) == $'\ntlock\ntlock-psu\ntlock-stage' ]]
	kill $all
	wait $all
}

# A container sees all locks in sysfs, and has one's device file
test_locks_of_a_container() {
	make_locks psu stage
	for words in "status -rn -o LOCK" "list -rn -o LOCK"; do
		run 0 unshare -m bash -c '
			mkdir real
			mount --bind /dev real
			mount -t tmpfs none /dev
			cp -a real/tlock-psu /dev
			mknod -m 666 /dev/null c 1 3
			exec "$@"' bash "$tlock" $words
		[[ $(<out) == tlock-psu && ! -s err ]]
		rmdir real
	done
	# As docker's --device /dev/tlock-psu:/dev/tlock makes it
	run 66 unshare -m bash -c 'mount --bind /dev/tlock-psu /dev/tlock; exec "$@"' \
		bash "$tlock" run echo never
	in_file '^tlock: /dev/tlock: the device file leads to another lock, tlock-psu: .* choose it there by TLOCK=psu ' err
}

test_screen_of_long_names() {
	serial=usb-FTDI_FT232R_USB_UART_A6008is
	printf -v longest %0121d 0
	make_locks psu ${serial}P-if00-port0 ${serial}Q-if00-port0
	sysfs=/sys/class/tlock/tlock-${serial}Q-if00-port0
	hold -d ${serial}Q-if00-port0 -j "$ascii_job"
	screen 80 "$tlock" status
	check 'all(width(line) <= 80 for line in text.splitlines())' out
	mapfile -t lines <out
	[[ ${#lines[@]} -eq 7 && ${lines[0]} == "LOCK      STATE JOB "* ]]
	[[ ${lines[2]} == "tlock-psu free "* ]]
	[[ ${lines[3]} == tlock-${serial}P-if00-port0 && ${lines[4]} == "          free "* ]]
	[[ ${lines[5]} == tlock-${serial}Q-if00-port0 ]]
	[[ ${lines[6]} == "          held  calibrate the wi"*"… "*"$holder root head "* ]]
	screen 80 "$tlock" status -n
	check 'all(width(line) <= 80 for line in text.splitlines())' out
	[[ $(head -n 3 out | tail -n 1) == tlock-${serial}P-if00-port0 ]]
	# A table that fits has one line for each lock, and so has any other output
	screen 80 "$tlock" list
	[[ $(wc -l <out) -eq 5 ]]
	screen 200 "$tlock" status
	[[ $(wc -l <out) -eq 5 ]]
	run 0 "$tlock" status
	[[ $(wc -l <out) -eq 5 ]]
	screen 80 "$tlock" status --json
	in_file "\"lock\": \"tlock-${serial}P-if00-port0\"" out
	# Blocks have the names, too
	screen 80 "$tlock" status --output-all ${serial}P-if00-port0
	in_file "^LOCK: +tlock-${serial}P-if00-port0$" out
	let_go
	make_locks "$longest"
	screen 80 "$tlock" status
	in_file "^tlock-$longest$" out
}

# cpu_time COMMAND...: its CPU time in milliseconds, at best
cpu_time() {
	local TIMEFORMAT='%U %S' user system best=999999

	for _ in 1 2 3; do
		read -r user system < <(set +x; { time "$@" >/dev/null; } 2>&1)
		user=${user/./} system=${system/./}
		user=$((10#$user + 10#$system))
		((user >= best)) || best=$user
	done
	echo "$best"
}

# All holders have ended, and their files are in one process: to look for them
# once more for each lock would take five hundred times as long
test_five_hundred_locks() {
	run 0 "$tlock" create $(seq -f 'usb-FTDI_FT232R_USB_UART_A6%05.0f-if00-port0' 500)
	perl -e '
		for (glob("/dev/tlock-*")) {
			open(my $lock, "+<", $_) or die;
			push @locks, $lock;
		}
		if (!fork) {
			for (@locks) {
				my $arg = pack("qx64a64x120", 0, "acquire");
				ioctl($_, 0xC100BC00, $arg) or die;
			}
			exit;
		}
		wait;
		open(my $ready, ">", "ready");
		sleep 1000' &
	holders=$!
	until_ok test -e ready
	run 0 "$tlock" status --json
	check 'len(j["locks"]) == 501 and all(l["open_in"] == ['$holders']
		for l in j["locks"][1:])' out
	held=$(cpu_time "$tlock" status)
	kill $holders
	wait $holders || :
	free=$(cpu_time "$tlock" status)
	((free > 0 && held < 30 * free))
}

udevd=/lib/systemd/systemd-udevd

# Whoever may take a new lock can do so once it has been created
test_create_waits_for_udev() {
	[[ -x $udevd ]] || skip "udev is not installed"
	mkdir -p /run/udev/rules.d
	# Takes longer than any command
	echo 'SUBSYSTEM=="tlock", PROGRAM="/bin/sleep 1", GROUP="nogroup", MODE="0664"' \
		>/run/udev/rules.d/99-test.rules
	run 0 "$tlock" create before
	$udevd --daemon
	trap 'kill -CONT "$daemon"; kill "$daemon"; until_ok gone "$daemon"
		rm -r /run/udev' EXIT
	daemon=$(pgrep -x systemd-udevd | head -n 1)
	run 0 "$tlock" create psu stage
	[[ ! -s err ]]
	for lock in psu stage; do
		run 0 $nobody "$tlock" run -n -d $lock true
	done
	# While udev works for somebody else's
	echo psu2 >/sys/class/tlock/new_lock
	until_ok test -e /run/udev/queue
	run 0 "$tlock" create psu2
	run 0 $nobody "$tlock" run -n -d psu2 true
	delete_lock psu
	delete_lock psu2
	run 0 "$tlock" delete stage
	until_ok gone_from_udev
	# What udev does not know does not make anybody wait
	refused 0 "/dev/tlock-before exists already" "$tlock" create before
	refused 0 "/dev/tlock exists already" "$tlock" create tlock
	delete_lock before
	run 0 "$tlock" create before

	kill -STOP "$daemon"
	run 0 "$tlock" create late
	[[ $(<err) == "tlock: /dev/tlock-late: udev has not applied its rules within 10 seconds: only root may be able to take the lock" ]]
}

gone() {
	[[ ! -e /proc/$1 ]]
}

gone_from_udev() {
	[[ ! -e /run/udev/queue ]]
}

### tlock monitor, tlock log

# monitor OPTION...: monitor in the background, into "events"; $monitor is the
# process
monitor() {
	# What the shell traces is no error
	background sh -c 'exec "$0" monitor "$@" 2>events-err' "$tlock" "$@" \
		>events
	monitor=$!
}

end_monitor() {
	kill -INT "$monitor"
	wait "$monitor"
	[[ ! -s events-err ]]
}

# abandon JOB: take the lock, and end without a release
abandon() {
	hold_raw perl "$1"
	kill -9 "$holder"
	wait "$holder" || :
}

test_monitor() {
	hold -j before
	before=$holder
	until_ok held_longer_than 1
	wait_for tlock waits
	monitor
	until_ok in_file ' waiting .* waits$' events
	run 1 "$tlock" run -w 0.1 -j late true
	run 1 "$tlock" run -n -j '' sh
	let_go
	until_ok in_file ' released .* waits$' events
	abandon mortal
	until_ok in_file ' abandoned ' events
	end_monitor
	is_abandoned
	check 'all(re.match("[0-2][0-9]:[0-5][0-9]:[0-6][0-9][.][0-9]{3} tlock ", line)
		for line in text.splitlines())' events
	sed -E 's/^\S+ //; s/ +/ /g; s/ [0-9.]+[mu]?s / T /
		s/ ('$before'|'$waiter'|'$holder') / P /; s/ [0-9]+ / N /' \
		events >list
	[[ $(<list) == "tlock held T P head before
tlock waiting T P true waits
tlock waiting N true late
tlock timed-out T N true late
tlock timed-out N sh
tlock released T P head before
tlock acquired T P true waits
tlock released T P true waits
tlock acquired P perl mortal
tlock abandoned T P perl mortal" ]]
	# What AFTER is about
	check '(lambda after: 1 <= took(after["held before"]) <=
		took(after["released before"]) and 0 < took(after["acquired waits"])
		< took(after["released before"]) - 0.8 and
		took(after["timed-out late"]) >= 0.1)({" ".join([words[2], words[-1]]):
		words[3] for words in map(str.split, text.splitlines())})' events
	# They are aligned
	check 'len({line.index(job) for line in text.splitlines() for job in
		("before", "waits", "late", "mortal") if job in line}) == 1' events
}

test_monitor_json() {
	hold -j 'say "\x"'
	wait_for tlock waits -w 3600
	monitor --json
	until_ok in_file waits events
	let_go
	until_ok in_file 'released.*waits' events
	end_monitor
	check '[e["event"] for e in j] ==
		["held", "waiting", "released", "acquired", "released"]' events
	check 'j[0] == {"time": j[0]["time"], "monotonic": j[0]["monotonic"],
		"lock": "tlock", "event": "held", "job": "say \"\\x5cx\"",
		"pid": '$holder', "uid": 0, "user": "root", "command": "head",
		"host": None, "token": j[0]["token"], "ticket": None, "waited": None,
		"held": j[0]["held"], "cause": None, "lost": 0}' events
	check 'j[0]["token"] + 1 == j[3]["token"] and j[0]["held"] < j[2]["held"] and
		0 < j[1]["waited"] < j[3]["waited"] < 200 and
		j[1]["ticket"] == j[3]["ticket"] > 0 and
		j[2]["monotonic"] - j[0]["monotonic"] > 0 and
		abs(j[2]["held"] - j[0]["held"] -
		j[2]["monotonic"] + j[0]["monotonic"]) < 0.01' events
	check 'abs(seconds(re.sub("[.][0-9]*", "", j[4]["time"])) -
		time.time()) < 200' events
}

# revoke_twice: an operator takes the lock, and then a lease ends
revoke_twice() {
	hold -j first
	run 0 "$tlock" revoke tlock
	ends 75 "$holder"
	hold --lease 5 -j second
	kill -STOP "$(child_of "$holder")"
	was_revoked -j third
	ends 75 "$holder"
}

test_monitor_of_revocations() {
	monitor_twice
	revoke_twice
	until_ok in_file 'released.*third' events
	until_ok in_file 'released.*third' lines
	kill -TERM $second
	wait $second
	end_monitor
	check '[(e["event"], e["job"], e["cause"]) for e in j[:6]] ==
		[("acquired", "first", None), ("revoked", "first", "operator"),
		("acquired", "second", None), ("waiting", "third", None),
		("revoked", "second", "lease"), ("acquired", "third", None)]' events
	check 'j[1]["token"] == j[0]["token"] and j[4]["held"] > 1' events
	[[ $(grep -c ' tlock revoked  *[0-9.]*m*s  *[0-9]* head  *\(first\|second\)$' lines) -eq 2 ]]
	check '[(e["name"], e["args"]["end"]) for e in j["traceEvents"]
		if e["ph"] == "X" and e["tid"] == 1][:3] == [("first", "revoked"),
		("second", "revoked"), ("third", "released")]' t.json
	check '[e["name"] for e in j["traceEvents"] if e["ph"] == "i"] ==
		["revoked", "revoked"]' t.json
	# The lock was handed over
	check '[e["ph"] for e in j["traceEvents"] if e["ph"] in "sf"] ==
		["s", "f"]' t.json
	"$top/userlib/tests/pictures" t.json t.svg
}

test_journal_of_revocations() {
	fake_journal
	monitor --journal
	until_ok reads "$monitor"
	revoke_twice
	until_ok in_file 'released.*third' journal
	end_monitor
	[[ $(entries journal | grep -E 'revoked|^TLOCK_CAUSE|^PRIORITY=4') == "MESSAGE=tlock: revoked: head (pid N, user root), job 'first', held T
PRIORITY=4
TLOCK_EVENT=revoked
TLOCK_CAUSE=operator
MESSAGE=tlock: revoked: head (pid N, user root), job 'second', held T
PRIORITY=4
TLOCK_EVENT=revoked
TLOCK_CAUSE=lease" ]]
}

# monitor_twice: a monitor for programs and, as $second, one for people that draws
monitor_twice() {
	monitor --json
	background "$tlock" monitor --timeline t.json --svg t.svg >lines
	second=$!
	until_ok reads "$monitor"
	until_ok reads $second
}

# What a monitor does not read in time is lost, but it says so, even if it has
# read nothing before
test_monitor_lost() {
	monitor_twice
	for last in one two; do
		kill -STOP "$monitor" $second
		until_ok stopped "$monitor"
		until_ok stopped $second
		perl -e '
			open(my $lock, "+<", "/dev/tlock") or die;
			for (1 .. 600) {
				my $arg = pack("qx64a64x120", -1, "job");
				ioctl($lock, 0xC100BC00, $arg) or die;
				ioctl($lock, 0xBC01, 0) or die;
			}'
		kill -CONT "$monitor" $second
		"$tlock" run -j $last true
		until_ok in_file "released.*$last" events
		until_ok in_file "released.*$last" lines
	done
	kill -TERM $second
	wait $second
	end_monitor
	check 'j[0]["lost"] >= 176 and len([e for e in j if e["lost"]]) == 2 and
		sum(e["lost"] or 1 for e in j) == 2 * 1202 and
		all((e["event"] == "lost") == (e["lost"] > 0) for e in j)' events
	check '(lambda lost: len(lost) == 2 and sum(map(int, lost)) +
		text.count("\n") - 2 == 2 * 1202)
		(re.findall("tlock lost        ([0-9]+) events\n", text))' lines
	"$top/userlib/tests/pictures" t.json t.svg
	check '[e["args"]["lost"] >= 176 for e in j["traceEvents"]
		if e["ph"] == "i" and e["name"] == "lost"] == [True, True]' t.json
	check 'len(re.findall("<title>[0-9]+ events lost</title>", text)) == 2' t.svg
}

# Events of several locks are in the order of time, even if read later
test_order_of_events() {
	make_locks psu stage
	monitor --json
	until_ok reads "$monitor"
	kill -STOP "$monitor"
	until_ok stopped "$monitor"
	perl -e '
		for (qw(psu stage)) {
			open(my $lock, "+<", "/dev/tlock-$_") or die;
			push @locks, $lock;
		}
		for (1 .. 400) {
			my $lock = $locks[$_ * $_ % 7 % 2];
			my $arg = pack("qx64a64x120", -1, "job $_");
			ioctl($lock, 0xC100BC00, $arg) or die;
			ioctl($lock, 0xBC01, 0) or die;
		}'
	kill -CONT "$monitor"
	until_ok in_file 'released.*job 400' events
	end_monitor
	check '[(e["job"], e["event"]) for e in j] == [("job %d" % i, event)
		for i in range(1, 401) for event in ("acquired", "released")] and
		len({e["lock"] for e in j}) == 2' events
}

# However much happens while it begins, it says each thing once, and no wait
# seems to last for ever
test_monitor_in_a_storm() {
	for _ in 1 2 3; do
		background perl -e '
			open(my $lock, "+<", "/dev/tlock") or die;
			for (;;) {
				my $arg = pack("qx64a64x120", -1, "storm");
				ioctl($lock, 0xC100BC00, $arg) or die;
				select(undef, undef, undef, 0.0001);
				ioctl($lock, 0xBC01, 0) or die;
			}'
	done
	for _ in 1 2 3 4 5 6; do
		monitor --json --timeline t.json --svg t.svg
		until_ok lines_of 100 events
		end_monitor
		# In a gap, some may begin or end
		sed -i '/"event":"lost"/,$d' events
		[[ $(wc -l <events) -gt 1 ]] || continue
		check '(lambda begun, ended: len(set(begun)) == len(begun) and
			len(set(ended)) == len(ended) and
			set(ended) <= set(begun) | set(ended[:1]) and
			begun == sorted(begun) and ended == sorted(ended))
			([e["token"] for e in j if e["event"] in ("held", "acquired")],
			[e["token"] for e in j if e["event"] == "released"])' events
		check '(lambda waits, grants: len(set(waits)) == len(waits) and
			all(t > max(grants) for t in set(waits) - set(grants)))
			([e["ticket"] for e in j if e["event"] == "waiting"],
			[e["ticket"] for e in j if e["event"] == "acquired" and
			e["ticket"]] + [0])' events
		"$top/userlib/tests/pictures" t.json t.svg
	done
}

# It ends although there is always something to read
test_monitor_ends_in_a_storm() {
	background perl -e '
		open(my $lock, "+<", "/dev/tlock") or die;
		my $arg = pack("qx64a64x120", -1, "storm");
		while (ioctl($lock, 0xC100BC00, $arg)) {
			ioctl($lock, 0xBC01, 0) or die;
		}'
	run 0 timeout --preserve-status -k 60 2 sh -c 'exec "$0" monitor >/dev/null' \
		"$tlock"
}

# Names of commands and jobs cannot break out of their place
test_monitor_escapes() {
	monitor_twice
	hold_raw $'a\xff\n\e[2J\xc2\x9b</' \
		$'"q" \\ \\x41 é \xff</title>&\xef\xbf\xbf'
	echo >fifo
	wait "$holder"
	until_ok in_file released events
	until_ok in_file released lines
	kill -TERM $second
	wait $second
	end_monitor
	comm='a\xff\x0a\x1b[2J\xc2\x9b</'
	job='"q" \ \x5cx41 é \xff</title>&'$'\xef\xbf\xbf'
	check 'text.count("\n") == 2 and printable(text)' lines
	check "all(line.endswith(r'''$comm $job''') for line in text.splitlines())" \
		lines
	check 'printable(text)' events
	check "[(e['command'], e['job']) for e in j] ==
		2 * [(r'''$comm''', r'''$job''')]" events
	check 'printable(text)' t.json
	check "{(e['args']['command'], e['args']['job'], e['name'])
		for e in j['traceEvents'] if e['ph'] == 'X'} ==
		{(r'''$comm''', r'''$job''', r'''$job''')}" t.json
	check "r'''$comm $holder''' in [e['args']['name']
		for e in j['traceEvents'] if e['name'] == 'thread_name']" t.json
	check 'printable(text)' t.svg
	"$top/userlib/tests/pictures" t.json t.svg
	check "r'''tlock: $comm $holder, ${job/$'\xef\xbf\xbf'/?}: held ''' in
		__import__('html').unescape(text)" t.svg
}

# reads PID: has it begun to monitor?
reads() {
	[[ $(</proc/$1/wchan) == *poll* ]]
}

test_monitor_of_new_locks() {
	make_locks psu
	monitor
	until_ok reads "$monitor"
	run 1 rmmod tlock
	in_file 'in use' err
	make_locks stage
	"$tlock" run -d stage -j move true
	until_ok in_file 'released .* move$' events
	delete_lock stage
	until_ok lines_of 4 events
	# Another one of this name
	make_locks stage
	until_ok lines_of 5 events
	delete_lock stage
	delete_lock psu
	until_ok lines_of 7 events
	end_monitor
	check 're.fullmatch("\\S+ tlock-stage created\n"
		"\\S+ tlock-stage acquired .* move\n"
		"\\S+ tlock-stage released .* move\n"
		"\\S+ tlock-stage deleted\n"
		"\\S+ tlock-stage created\n"
		"\\S+ tlock-stage deleted\n"
		"\\S+ tlock-psu   deleted\n", text)' events
}

test_monitor_of_some_locks() {
	make_locks psu stage
	monitor psu /dev/tlock-stage tlock-psu
	until_ok reads "$monitor"
	"$tlock" run -j first true
	"$tlock" run -d psu -j ramp true
	"$tlock" run -d stage -j move true
	delete_lock psu
	until_ok in_file 'psu +deleted' events
	"$tlock" run -d stage -j back true
	delete_lock stage
	# Nothing is left to monitor
	wait "$monitor"
	check 'text.count("\n") == 8 and "first" not in text' events
	# In the order of time
	check '[line.split()[0] for line in text.splitlines()] ==
		sorted(line.split()[0] for line in text.splitlines())' events
}

test_bad_usage_of_monitor() {
	for options in --nosuch --timeline --svg "--json=x" "--json --journal"; do
		run 64 "$tlock" monitor $options
		[[ ! -s out && -s err ]]
	done
	for lock in nosuch /dev/null; do
		run 66 "$tlock" monitor tlock $lock
		in_file "$lock: " err
	done
	for option in --timeline --svg; do
		run 73 "$tlock" monitor $option ./nosuch/file
		in_file '^tlock: ./nosuch/file: No such file' err
	done
}

test_monitor_without_a_reader() {
	# Ends although nothing happens
	run 0 bash -c 'env --default-signal=PIPE timeout 120 "$0" monitor | true
		[[ ${PIPESTATUS[0]} -eq 141 ]]' "$tlock"
	run 0 bash -c 'trap "" PIPE; timeout 120 "$0" monitor --svg svg | true
		[[ ${PIPESTATUS[0]} -eq 74 ]]' "$tlock"
	in_file '^tlock: write error: Broken pipe' err
	in_file '^</svg>' svg
	hold
	run 74 timeout 120 sh -c 'exec "$0" monitor >/dev/full' "$tlock"
	let_go
}

test_screen_of_the_monitor() {
	name=usb-FTDI_FT232R_USB_UART_A5069RR4-if00-port0
	make_locks $name
	sysfs=/sys/class/tlock/tlock-$name
	hold -d $name -j "$ascii_job"
	wait_for tlock-$name "$wide_job"
	screen 80 timeout -s TERM 2 "$tlock" monitor $name
	check 'all(width(line) <= 80 for line in text.splitlines())' out
	mapfile -t lines <out
	[[ ${#lines[@]} -eq 3 && ${lines[0]} == "TIME         LOCK "* ]]
	[[ ${lines[1]} == *" …9RR4-if00-port0 held "*"$holder head    calib"*"…" ]]
	screen 200 timeout -s TERM 2 "$tlock" monitor $name
	in_file " tlock-$name held .* head    $ascii_job$" out
	let_go
	wait
}

# Who waited and held when, of a few agents
test_timeline() {
	make_locks psu
	hold -j before
	wait_for tlock 'first <&>'
	first=$waiter
	monitor --timeline t.json --svg t.svg
	until_ok in_file 'first' events
	wait_for tlock $'\xef\xbf\xbf'
	run 1 "$tlock" run -w 0.1 -j late true
	let_go
	until_ok in_file " released .* $waiter true" events
	"$tlock" run -d psu true
	abandon mortal
	until_ok in_file ' abandoned ' events
	hold -j last
	until_ok in_file ' last$' events
	end_monitor
	let_go

	check '{e["ph"] for e in j["traceEvents"]} == set("MXsfi")' t.json
	check '{e["args"]["name"] for e in j["traceEvents"]
		if e["name"] == "process_name"} == {"tlock", "tlock-psu"}' t.json
	check '{"held for", "head '$holder'", "true '$first'"} <=
		{e["args"]["name"] for e in j["traceEvents"]
		if e["name"] == "thread_name"}' t.json
	# The row of the lock
	check '[(e["name"], e["args"]["end"]) for e in j["traceEvents"]
		if e["ph"] == "X" and e["tid"] == 1] == [("before", "released"),
		("first <&>", "released"), ("\uffff", "released"),
		("mortal", "abandoned"), ("last", "going on")]' t.json
	"$top/userlib/tests/pictures" t.json t.svg
	check '[(e["name"], e["args"]["end"]) for e in j["traceEvents"]
		if e["ph"] == "X" and e["cat"] == "waiting"] ==
		[("waiting: first <&>", "acquired"), ("waiting: \uffff", "acquired"),
		("waiting: late", "timed-out")]' t.json
	# Two hand-overs
	check '[e["ph"] for e in j["traceEvents"] if e["ph"] in "sf"] ==
		["s", "f"] * 2' t.json
	check '[e["name"] for e in j["traceEvents"] if e["ph"] == "i"] ==
		["timed-out", "abandoned"]' t.json

	in_file '>first &lt;&amp;&gt;</text>' t.svg
}

# One process that waits many times at once, and another that nobody sees end
test_timeline_of_an_event_loop() {
	monitor --timeline t.json --svg t.svg
	until_ok reads "$monitor"
	perl -e '
		for (1 .. 20) {
			open(my $lock, "+<", "/dev/tlock") or die;
			push @locks, $lock;
			my $arg = pack("qVx60a64x120", -1, 1, "job $_");
			ioctl($lock, 0xC100BC00, $arg);	# TLOCK_ASYNC
		}'
	until_ok in_file 'withdrawn .* job 20$' events
	end_monitor
	check 'len({e["tid"] for e in j["traceEvents"] if e["ph"] == "X" and
		e["cat"] == "waiting"}) == 19' t.json
	check '"perl" in text and "(19)" in text' t.svg
	"$top/userlib/tests/pictures" t.json t.svg
}

# fake_journal: something that is like the journal, and writes what it gets to
# "journal" in journalctl's export format
fake_journal() {
	[[ ! -e /run/systemd/journal/socket ]] || skip "there is a journal"
	trap 'rm -f /run/systemd/journal/socket; jobs -p | xargs -r kill -9 || :
		[[ ! -p fifo ]] || echo 1<>fifo' EXIT
	mkdir -p /run/systemd/journal
	/usr/bin/python3 -c '
import os, socket
journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
journal.bind("/run/systemd/journal/socket")
with open("journal", "wb", 0) as file:
    while True:
        file.write(b"__CURSOR=x\n__REALTIME_TIMESTAMP=1795701737250000\n" +
                   journal.recv(65536) + b"\n")' &
	fake=$!
	until_ok test -S /run/systemd/journal/socket
}

# The entries as they are in the journal, without what differs each time
entries() {
	sed -E '/^__/d; s/^(TLOCK_(PID|TOKEN|TICKET))=[1-9][0-9]*$/\1=N/
		s/^(TLOCK_(WAITED|HELD))=[0-9]+\.[0-9]{9}$/\1=S/
		s/pid [0-9]+/pid N/; s/(held|waited) [0-9.]+[mu]?s/\1 T/' "$@"
}

test_journal() {
	run 69 "$tlock" monitor --journal
	[[ $(<err) == "tlock: cannot log into the journal: /run/systemd/journal/socket: No such file or directory" ]]
	fake_journal
	hold -j before
	monitor --journal
	until_ok in_file TLOCK_LOCK journal
	let_go
	abandon $'é\xff'
	until_ok in_file abandoned journal
	[[ ! -s events && $(entries journal | head -n 30) == "MESSAGE=tlock: held: head (pid N, user root), job 'before', held T
PRIORITY=6
SYSLOG_IDENTIFIER=tlock-monitor
TLOCK_LOCK=tlock
TLOCK_EVENT=held
TLOCK_JOB=before
TLOCK_PID=N
TLOCK_UID=0
TLOCK_COMMAND=head
TLOCK_TOKEN=N
TLOCK_HELD=S

MESSAGE=tlock: released: head (pid N, user root), job 'before', held T
PRIORITY=6"* ]]
	entries journal | tail -n 12 >last
	[[ $(head -n 2 last) == "MESSAGE=tlock: abandoned: perl (pid N, user root), job 'é\\xff', held T"$'\n'PRIORITY=4 ]]
	grep -qaxF $'TLOCK_JOB=é\xff' last
	# It restarts
	kill -9 $fake
	wait $fake || :
	rm /run/systemd/journal/socket
	is_abandoned
	mv journal journal1
	fake_journal
	until_ok in_file released journal
	grep -q '^TLOCK_EVENT=acquired$' journal
	end_monitor
}

test_log() {
	fake_journal
	make_locks psu
	monitor --journal
	until_ok reads "$monitor"
	hold -j one
	wait_for tlock two
	let_go
	wait $waiter
	hold_raw $'new\nline' three
	echo >fifo
	wait $holder
	delete_lock psu
	until_ok in_file deleted journal
	end_monitor
	# What any user can log cannot break out of its place, either
	printf 'TLOCK_LOCK=\033[2J\nTLOCK_EVENT=\033c\n\n' >>journal
	printf -- '-- No entries --\n__CURSOR=y\n' >>journal

	mkdir bin
	printf '#!/bin/sh\nprintf "%%s\\n" "$@" >words\ncat journal\nexit $STATUS\n' \
		>bin/journalctl
	chmod +x bin/journalctl
	TZ=UTC PATH=$PWD/bin:$PATH STATUS=0 run 0 "$tlock" log -S -2h --until=now -fn5 psu /dev/tlock
	[[ $(<words) == "--no-pager
--since=-2h
--until=now
--lines=5
--follow
--output=export
SYSLOG_IDENTIFIER=tlock-monitor
TLOCK_LOCK=tlock-psu
TLOCK_LOCK=tlock" ]]
	[[ ! -s err ]]
	sed -E 's/ +/ /g; s/ [0-9.]+[mu]?s / T /; s/ [0-9]+ ([a-z])/ P \1/' out >list
	[[ $(<list) == "Nov 26 14:02:17 tlock acquired P head one
Nov 26 14:02:17 tlock waiting P true two
Nov 26 14:02:17 tlock released T P head one
Nov 26 14:02:17 tlock acquired T P true two
Nov 26 14:02:17 tlock released T P true two
Nov 26 14:02:17 tlock acquired P new\\x0aline three
Nov 26 14:02:17 tlock released T P new\\x0aline three
Nov 26 14:02:17 tlock-psu deleted
Nov 26 14:02:17 \\x1b[2J \\x1bc" ]]
	STATUS=3 PATH=$PWD/bin:$PATH run 3 "$tlock" log
	echo '{"x": 1}' >journal
	STATUS=0 PATH=$PWD/bin:$PATH run 0 "$tlock" log --json
	in_file '^--output=json$' words
	[[ $(<out) == '{"x": 1}' ]]
	: >journal
	STATUS=0 PATH=$PWD/bin:$PATH run 0 "$tlock" log
	[[ ! -s out && $(<err) == "tlock: no events in the journal: see 'systemctl status tlock-monitor'" ]]
	PATH=/nosuch run 69 "$tlock" log
	in_file '^tlock: failed to execute journalctl' err
	for option in --nosuch --since -n; do
		run 64 "$tlock" log $option
	done
}

### Locks that several hosts share

# serve NAME [COMMAND]: serve the gate of a lock in the background; what the
# daemon does is said by tell
serve() {
	rm -f .commands .answers-of-daemon
	mkfifo .commands .answers-of-daemon
	"$top/userlib/tests/fake-tlockd" "$1" <.commands >.answers-of-daemon &
	daemon=$!
	exec {commands}>.commands {answers}<.answers-of-daemon
	read -r REPLY <&"$answers"
	[[ $REPLY == ready ]]
	[[ $# -eq 1 ]] || tell "$2"
}

tell() {
	echo "$1" >&"$commands"
	read -r REPLY <&"$answers"
	[[ $REPLY == ok ]]
}

end_daemon() {
	# Other processes may have inherited its pipe
	kill "$daemon"
	wait "$daemon" || :
	exec {commands}>&- {answers}<&-
}

make_gated() {
	echo "$1" >/sys/class/tlock/new_gated_lock
}

unserved="its gate is shut: no tlockd runs on this host; as root, run 'systemctl start tlockd'"
remote="held by job 'acq' \(python3, on host lab2\) for 1m [0-9]+s"

test_create_gated() {
	run 0 "$tlock" create --gated psu /dev/tlock-stage
	[[ ! -s out && ! -s err ]]
	for lock in psu stage; do
		[[ -c /dev/tlock-$lock ]]
		[[ $(<"/sys/class/tlock/tlock-$lock/gate") == unserved ]]
	done
	refused 0 "/dev/tlock-psu exists already, and is gated" \
		"$tlock" create --gated psu
	refused 0 "/dev/tlock-psu exists already, and is gated" \
		"$tlock" create psu
	make_locks lamp
	refused 73 "/dev/tlock-lamp exists already, but is not gated: while nobody uses it, run 'tlock delete lamp', and then this again" \
		"$tlock" create --gated lamp
	refused 73 "/dev/tlock is the first lock, which cannot be gated" \
		"$tlock" create --gated tlock
	run 64 "$tlock" create --gated 'a b'
	run 64 "$tlock" create --gated
	run 64 "$tlock" delete --gated psu
	# A daemon is not in the way
	serve psu
	run 0 "$tlock" delete psu stage lamp
	end_daemon
	refused 77 "permission denied: only root may create locks" \
		$nobody "$tlock" create --gated psu
}

# Its class has only the other files
test_create_gated_by_an_older_module() {
	run 71 unshare -m sh -c 'mkdir class
		ln -s "$(readlink -f /sys/class/tlock/tlock)" class
		: >class/new_lock
		mount --bind class /sys/class/tlock
		exec "$@"' \
		sh "$tlock" create --gated psu
	in_file "^tlock: /dev/tlock: the tlock module, version .*: install the module" err
}

test_gate_without_daemon() {
	make_gated psu
	run 1 "$tlock" run -d psu -n echo never
	[[ $(<err) == "tlock: /dev/tlock-psu: $unserved" ]]
	run 1 "$tlock" run -d psu -w 0.1 echo never
	[[ $(<err) == "tlock: /dev/tlock-psu: timed out after 100ms: $unserved" ]]
	run 0 "$tlock" status psu
	[[ $(<out) == "LOCK      STATE JOB PID USER COMMAND HELD SINCE WAITERS
tlock-psu shut                                        0

tlock-psu: $unserved" ]]
	run 0 "$tlock" status --json psu
	check 'l["state"] == "shut" and l["gate"] == "unserved" and
		all(l[c] is None for c in ("job", "pid", "user", "command", "held",
		"since", "host"))' out
	run 69 "$tlock" revoke psu
	[[ $(<out) == "/dev/tlock-psu: $unserved" ]]
	[[ $(<err) == "tlock: /dev/tlock-psu: nobody on this host holds it: nothing was revoked" ]]
	run 0 "$tlock" status --metrics
	for line in 'tlock_held{lock="tlock-psu",job=""} 0' \
		'tlock_gate_open{lock="tlock-psu"} 0' \
		'tlock_gate_served{lock="tlock-psu"} 0' 'tlockd_up 0'; do
		[[ $(grep -cxF "$line" out) -eq 1 ]]
	done
	lacks 'tlockd_[^u]' out
	lacks 'tlock_gate.*"tlock"' out
	[[ $(tail -n 1 out) == '# EOF' ]]
}

test_gate_without_cluster() {
	make_gated psu
	serve psu
	run 1 "$tlock" run -d psu -n echo never
	[[ $(<err) == "tlock: /dev/tlock-psu: its gate is shut: tlockd waits for the cluster; see 'systemctl status tlockd'" ]]
	tell 'shut lab2'
	run 1 "$tlock" run -d psu -n echo never
	[[ $(<err) == "tlock: /dev/tlock-psu: its gate is shut: host lab2 has the lock" ]]
	run 0 "$tlock" status psu
	[[ $(<out) == "LOCK      STATE JOB PID USER COMMAND HOST HELD SINCE WAITERS
tlock-psu shut                       lab2                  0

tlock-psu: its gate is shut: host lab2 has the lock" ]]
	end_daemon
}

test_holder_on_another_host() {
	make_gated psu
	serve psu 'shut lab2 7 acq python3'
	run 1 "$tlock" run -d psu -n echo never
	in_file "^tlock: /dev/tlock-psu: $remote$" err
	run 1 "$tlock" run -d psu -w 0.1 echo never
	in_file "^tlock: /dev/tlock-psu: timed out after 100ms: $remote$" err
	run 0 "$tlock" status psu
	[[ $(<out) =~ ^"LOCK      STATE  JOB PID USER COMMAND HOST "*"HELD SINCE "*"WAITERS
tlock-psu remote acq          python3 lab2 1m "[0-9]+"s "[^$'\n']+" 0"$ ]]
	run 0 "$tlock" status --json psu
	check 'l["state"] == "remote" and l["host"] == "lab2" and
		l["gate"] == "shut" and l["job"] == "acq" and
		l["command"] == "python3" and 65 <= l["held"] < 300 and
		l["pid"] is l["user"] is l["open_in"] is None' out
	run 0 "$tlock" status -rn -o UID,TOKEN,HOST,GATE psu
	[[ $(<out) == " 7 lab2 shut" ]]
	run 0 "$tlock" list -rn
	[[ $(tail -n 1 out) == "tlock-psu remote 0" ]]
	run 1 "$tlock" status --held-longer 60 psu
	run 69 "$tlock" revoke psu
	in_file "^/dev/tlock-psu: $remote, token 7$" out
	[[ $(<err) == "tlock: /dev/tlock-psu: only host lab2 can revoke it: run 'tlock revoke' there" ]]
	run 0 "$tlock" status --metrics psu
	in_file '^tlock_held\{lock="tlock-psu",job="acq",host="lab2"} 1$' out
	in_file '^tlock_gate_served\{lock="tlock-psu"} 1$' out
	# What the daemon said last, until it is back
	end_daemon
	run 0 "$tlock" status psu
	[[ $(tail -n 1 out) == "tlock-psu: $unserved" ]]
}

# The daemon can pass on any bytes that a host's administrator may choose
test_holder_on_another_host_is_escaped() {
	make_gated psu
	serve psu "shut 'l\"é' 7 '\"q\" λ' 'a b'"
	run 1 "$tlock" run -d psu -n echo never
	in_file "held by job '\"q\" λ' \(a b, on host l\"é\) for " err
	run 0 "$tlock" status --metrics psu
	in_file 'job="\\"q\\" λ",host="l\\"é"} 1$' out
	end_daemon
}

test_gate_opens() {
	make_gated psu
	serve psu 'shut lab2 7 acq python3'
	"$tlock" run -d psu -j mine sleep 100 &
	runner=$!
	until_ok eval '[[ $(</sys/class/tlock/tlock-psu/waiters) -eq 1 ]]'
	tell 'open 100'
	until_ok job_is mine psu
	run 0 "$tlock" status --json psu
	check 'l["state"] == "held" and l["gate"] == "open" and l["host"] is None and
		l["pid"] == '$runner \
		out
	run 0 "$tlock" status --metrics psu
	in_file '^tlock_held\{lock="tlock-psu",job="mine"} 1$' out
	in_file '^tlock_gate_open\{lock="tlock-psu"} 1$' out
	# The daemon is gone: the grant goes on, but there is no other
	end_daemon
	run 0 "$tlock" status psu
	in_file "^tlock-psu held +mine +$runner root " out
	[[ $(tail -n 1 out) == "tlock-psu: $unserved" ]]
	run 0 "$tlock" revoke psu
	[[ $(tail -n 1 out) == "/dev/tlock-psu: revoked, and now $unserved" ]]
	ends 75 $runner
}

test_monitor_of_a_gate() {
	make_gated psu
	serve psu 'shut lab2 7 acq python3'
	monitor --json psu
	background "$tlock" monitor --timeline t.json --svg t.svg psu >lines
	second=$!
	until_ok in_file remote events
	until_ok in_file remote lines
	check 'j == {"time": j["time"], "monotonic": j["monotonic"],
		"lock": "tlock-psu", "event": "remote", "job": "acq", "pid": None,
		"uid": None, "user": None, "command": "python3", "host": "lab2",
		"token": 7, "ticket": None, "waited": None, "held": j["held"],
		"cause": None, "lost": 0} and j["held"] >= 65' events
	[[ $(<lines) =~ " tlock-psu remote "\ *"1m "[0-9]+s\ *" python3 on lab2 acq"$ ]]
	tell 'open 100'
	"$tlock" run -d psu -j mine sleep 100 2>holder-err &
	holder=$!
	until_ok job_is mine psu
	tell 'shut lab2'
	ends 75 "$holder"
	in_file '^tlock: /dev/tlock-psu was revoked: ending sleep' holder-err
	until_ok in_file revoked events
	until_ok in_file revoked lines
	kill -TERM $second
	wait $second
	end_monitor
	end_daemon
	check '[(e["event"], e["job"], e["cause"], e["host"]) for e in j] ==
		[("remote", "acq", None, "lab2"), ("acquired", "mine", None, None),
		("revoked", "mine", "gate", None)]' events
	check '[(e["name"], e["args"]["end"]) for e in j["traceEvents"]
		if e["ph"] == "X" and e["tid"] == 1] == [("mine", "revoked")]' t.json
}

test_journal_of_a_gate() {
	fake_journal
	make_gated psu
	serve psu 'shut lab2 7 acq python3'
	monitor --journal psu
	until_ok in_file remote journal
	end_monitor
	end_daemon
	[[ $(entries journal | sed 's/held 1m .*/held M/') == "MESSAGE=tlock-psu: remote: python3 (on host lab2), job 'acq', held M
PRIORITY=6
SYSLOG_IDENTIFIER=tlock-monitor
TLOCK_LOCK=tlock-psu
TLOCK_EVENT=remote
TLOCK_JOB=acq
TLOCK_HOST=lab2
TLOCK_COMMAND=python3
TLOCK_TOKEN=N
TLOCK_HELD=S" ]]
	mkdir bin
	printf '#!/bin/sh\nexec cat journal\n' >bin/journalctl
	chmod +x bin/journalctl
	PATH=$PWD/bin:$PATH run 0 "$tlock" log
	[[ $(<out) == *" tlock-psu remote "*" python3 on lab2 acq" ]]
}

# tlockd_says LINE...: set what the status socket returns; "|" stands for a tab
tlockd_says() {
	printf '%s\n' "$@" | tr '|' '\t' >answer
	[[ ! -v tlockd ]] || return 0
	mkdir -p /run/tlockd
	rm -f /run/tlockd/status
	/usr/bin/python3 -c '
import socket
listener = socket.socket(socket.AF_UNIX)
listener.bind("/run/tlockd/status")
listener.listen()
while True:
    with listener.accept()[0] as peer:
        peer.sendall(open("answer", "rb").read())' &
	tlockd=$!
	until_ok "$tlock" status --cluster
}

end_tlockd() {
	kill "$tlockd"
	wait "$tlockd" || :
}

says_of_lab1="tlockd|0.3|lab1|https://etcd1:2379|8250|1204|3"

test_cluster() {
	make_gated psu
	now=$(printf '%(%s)T')
	tlockd_says "$says_of_lab1" "lock|psu|shut|2|1" \
		"queue|psu|lab2|$((now - 7265))|1|99|$((now - 65))|python3|acq \"x\" é" \
		"queue|psu|lab1|$((now + 60))|2|0|0||" "lock|lamp|open|0|4"
	run 0 "$tlock" status --cluster
	# The clock of a host may be ahead of this one's
	expected='^LOCK       HOST STATE   QUEUED JOB       COMMAND +HELD WAITERS
tlock-lamp      free +
tlock-psu  lab2 held     2h 1m acq "x" é python3 +1m [0-9]+s       1
tlock-psu  lab1 waiting    0us +2

lab1: the lease lasts for another 8\.2s, at https://etcd1:2379$'
	[[ $(<out) =~ $expected ]]
	run 0 "$tlock" status --cluster --noheadings /dev/tlock-lamp
	[[ $(<out) =~ ^tlock-lamp\ +free\ *$ ]]
	run 0 "$tlock" status --cluster --raw psu
	[[ $(sed -n 3p out) == "tlock-psu lab1 waiting 0.000000000    2" ]]
	run 0 "$tlock" status --cluster --json tlock-psu
	check 'j["tlockd"] == {"version": "0.3", "host": "lab1", "lease": 8.25,
		"endpoint": "https://etcd1:2379", "requests": 1204, "failures": 3}' out
	check 'len(j["locks"]) == 1 and seconds(l["queue"][0]["since"]) == '$((now - 65)) out
	check '(lambda first: {**l, "queue": [{**first, "queued": first["queued"] // 60,
		"held": first["held"] // 60, "since": 0}] + l["queue"][1:]})(l["queue"][0]) ==
		{"lock": "tlock-psu", "gate": "shut", "openings": 2, "lost": 1, "queue": [
		{"host": "lab2", "queued": 121, "job": "acq \"x\" é", "command": "python3",
		"held": 1, "since": 0, "token": 99, "waiters": 1},
		{"host": "lab1", "queued": 0, "job": None, "command": None, "held": None,
		"since": None, "token": None, "waiters": 2}]}' out
	run 0 "$tlock" status --cluster --json
	check '[lock["lock"] for lock in j["locks"]] == ["tlock-lamp", "tlock-psu"]' out
	run 0 "$tlock" status --metrics
	for line in 'tlockd_up 1' 'tlockd_lease_seconds 8.250000000' \
		'tlockd_requests_total 1204' 'tlockd_failures_total 3' \
		'tlockd_openings_total{lock="tlock-psu"} 2' \
		'tlockd_lost_total{lock="tlock-psu"} 1' \
		'tlockd_hosts{lock="tlock-psu"} 2'; do
		[[ $(grep -cxF "$line" out) -eq 1 ]]
	done
	# None of them without such a lock here
	run 0 "$tlock" status --metrics tlock
	lacks tlockd out
	tlockd_says "${says_of_lab1/8250/0}"
	run 0 "$tlock" status --cluster
	[[ $(<out) == "No lock of this host is shared; as root, run 'tlock create --gated NAME'
lab1: no lease, and this may be out of date: tlockd waits for the cluster; see 'systemctl status tlockd'" ]]
	end_tlockd
}

test_cluster_fails() {
	make_gated psu
	make_locks stage
	run 69 "$tlock" status --cluster
	[[ ! -s out && $(<err) == "tlock: ${unserved#*shut: }" ]]
	tlockd_says "$says_of_lab1"
	refused 66 "/dev/tlock-psu: tlockd does not serve it yet; see 'systemctl status tlockd'" \
		"$tlock" status --cluster --raw psu
	refused 66 "/dev/tlock-stage is this host's own: 'tlock create --gated' makes locks that hosts share" \
		"$tlock" status --cluster stage
	run 66 "$tlock" status --cluster nosuch
	in_file '^tlock: /dev/tlock-nosuch: no such lock' err
	for line in "" "lock|psu|open|0|0" "$says_of_lab1|1" "${says_of_lab1%|*}" \
		"${says_of_lab1/8250/-1}" "${says_of_lab1/8250/1s}"; do
		tlockd_says "$line"
		run 76 "$tlock" status --cluster
	done
	for line in nosuch "lock|psu|open|0" "queue|psu|lab1|1|1|0|0||" \
		$'lock|psu|open|0|0\nqueue|lamp|lab1|1|1|0|0||' \
		$'lock|psu|open|0|0\nqueue|psu|lab1|1|1|0|0|'; do
		tlockd_says "$says_of_lab1" "$line"
		run 76 "$tlock" status --cluster
		[[ ! -s out && $(<err) == "tlock: tlockd's answer is not as expected; "* ]]
	done
	printf %s "${says_of_lab1//|/$'\t'}" >answer
	run 76 "$tlock" status --cluster
	chmod 600 /run/tlockd/status
	refused 77 "/run/tlockd/status: permission denied: run this as root" \
		$nobody "$tlock" status --cluster
	kill -STOP "$tlockd"
	refused 69 "tlockd does not answer; see 'systemctl status tlockd'" \
		"$tlock" status --cluster
	kill -CONT "$tlockd"
	end_tlockd
	run 69 "$tlock" status --cluster
	[[ $(<err) == "tlock: ${unserved#*shut: }" ]]
	for options in --watch --metrics "-o JOB" --output-all "--held-longer 3"; do
		run 64 "$tlock" status --cluster $options
	done
	run 64 "$tlock" list --cluster
}

### All commands

test_help_and_version() {
	for subcommand in "" run status list revoke monitor log create delete; do
		for option in --help -h; do
			run 0 "$tlock" $subcommand $option
			in_file '^Usage:' out
			[[ ! -s err ]]
			[[ $(awk 'length > 80' out) == "" ]]
		done
		for option in --version -V; do
			run 0 "$tlock" $subcommand $option
			in_file '^tlock [0-9]+\.[0-9]' out
		done
	done
}

test_version_is_the_modules() {
	run 0 "$tlock" --version
	[[ $(<out) == "tlock $(<"$top/VERSION")" ]]
	[[ $(<out) == "tlock $(</sys/module/tlock/version)" ]]
}

test_manual_pages() {
	# Each option and column is in the manual and has a completion
	for subcommand in run status list revoke monitor log create delete; do
		"$tlock" $subcommand --help
	done >help
	sed -n 's/^ [a-zA-Z, -]*\(--[a-z-]*\) .*/\1/p; s/^ *\([A-Z-]*\)  .*/\1/p' \
		help | sort -u >words
	[[ $(wc -l <words) -ge 35 ]]
	sed 's/\\f[BIRP]//g; s/\\-/-/g' "$top/userlib/man/tlock.1" >manual
	for file in manual "$top/userlib/command/tlock.bash-completion"; do
		grep -oE -e '--[a-z-]+|[A-Z-]+' "$file" | sort -u >there
		[[ $(comm -23 words there | grep -v -e --help -e --version) == "" ]]
	done
}

# completes WORDS EXPECTED: the completions of the last word
completes() {
	local words=$1

	# What is typed there has no blank before and after "=", ":" and "@"
	COMP_LINE=$(sed -E 's/ ([=:@]) ?/\1/g' <<<"$words")
	COMP_POINT=${#COMP_LINE}
	COMP_WORDS=()
	while [[ $words == *' '* ]]; do
		COMP_WORDS+=("${words%% *}")
		words=${words#* }
	done
	COMP_WORDS+=("$words")
	COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
	COMPREPLY=()
	_tlock
	[[ ${COMPREPLY[*]} == "$2" ]]
}

test_completion() {
	# compopt works only within a completion
	compopt() { :; }
	# shellcheck source=/dev/null
	. "$top/userlib/command/tlock.bash-completion"
	[[ $(complete -p tlock) == "complete -F _tlock tlock" ]]
	make_locks psu psu2 a:b@c
	completes 'tlock ' 'run status list revoke monitor log create delete --help --version'
	completes 'tlock monitor ps' 'psu psu2'
	completes 'tlock monitor --jo' --journal
	completes 'tlock log ps' 'psu psu2'
	completes 'tlock log --s' --since
	completes 'tlock log --since ' ''
	completes 'tlock st' status
	completes 'tlock run --no' '--nonblock --no-fork'
	completes 'tlock run -d ' 'tlock a:b@c psu psu2'
	completes 'tlock run -d ps' 'psu psu2'
	completes 'tlock run -d tlock-p' 'tlock-psu tlock-psu2'
	completes 'tlock run -d /dev/tlock-psu' '/dev/tlock-psu /dev/tlock-psu2'
	completes 'tlock run -w ' ''
	PATH=/usr/bin completes 'tlock run -n -w 3 printen' printenv
	completes 'tlock run --lease ' ''
	completes 'tlock run --le' --lease
	PATH=/usr/bin completes 'tlock run --lease 3 printen' printenv
	completes 'tlock revoke ps' 'psu psu2'
	completes 'tlock revoke --' '--grace --token --help --version'
	completes 'tlock revoke --grace ' ''
	completes 'tlock revoke --token ' ''
	completes 'tlock revoke --token 7 ps' 'psu psu2'
	completes 'tlock status -o exp' EXPIRES
	completes 'tlock status -o revo' REVOKED
	completes 'tlock status ' 'tlock a:b@c psu psu2'
	completes 'tlock status psu ps' 'psu psu2'
	completes 'tlock delete ' 'a:b@c psu psu2'
	completes 'tlock delete psu ps' 'psu psu2'
	completes 'tlock delete --' '--help --version'
	completes 'tlock create ps' ''
	completes 'tlock create --' '--gated --help --version'
	# A name that readline splits
	completes 'tlock delete a :' b@c
	completes 'tlock status a : b @' c
	completes 'tlock run -d a : b' b@c
	completes 'tlock run --device = a :' b@c
	completes 'tlock list ' ''
	completes 'tlock status --out' '--output --output-all'
	completes 'tlock status -o J' JOB
	completes 'tlock status -o LOCK,wai' 'LOCK,WAITERS LOCK,WAIT-TOTAL LOCK,WAIT-MAX'
	completes 'tlock list --output +hel' +HELD
	completes 'tlock status -o si' SINCE
	completes 'tlock status --m' --metrics
	completes 'tlock status --cl' --cluster
	completes 'tlock list --m' ''
	completes 'tlock status --held-longer ' ''
	completes 'tlock list --output = +hel' +HELD
	completes 'tlock run --device =' 'tlock a:b@c psu psu2'
	completes 'tlock run --device = tl' tlock
	PATH=/usr/bin completes 'tlock run --device = tlock printen' printenv
	PATH=/usr/bin completes 'tlock run --device = a : b @ c printen' printenv
	PATH=/usr/bin completes 'tlock run -d a : b @ c printen' printenv
	PATH=/usr/bin completes 'tlock run -n /dev/tlock-a : b @ c printen' printenv
	# The arguments of COMMAND
	: >some-file
	completes 'tlock monitor --svg some-' some-file
	completes 'tlock run -w 3 -- cat some-' some-file
	completes 'tlock run /dev/tlock cat some-' some-file
}

test_permission_lacking() {
	for subcommand in status list; do
		run 0 setpriv --reuid 65534 --regid 65534 --clear-groups \
			"$tlock" $subcommand
	done
	run 66 setpriv --reuid 65534 --regid 65534 --clear-groups \
		"$tlock" run echo never
	[[ ! -s out ]]
	in_file '^tlock: /dev/tlock: permission denied: .*udev' err
}

test_device_missing() {
	trap 'mv /dev/tlock-away /dev/tlock' EXIT
	mv /dev/tlock /dev/tlock-away
	for words in "run echo" status list "monitor tlock"; do
		run 66 "$tlock" $words
		[[ ! -s out ]]
		in_file '^tlock: /dev/tlock: .*device file is missing' err
	done
}

test_module_not_loaded() {
	[[ -v TLOCK_KO ]] || skip "TLOCK_KO is not set"
	# Watching does not keep the module from being unloaded
	"$tlock" status --watch >watched 2>watched-err &
	until_ok in_file '^tlock' watched
	trap 'insmod "$TLOCK_KO"; until_ok test -w /dev/tlock' EXIT
	until_ok rmmod tlock
	status=0
	wait $! || status=$?
	[[ $status -eq 66 ]]
	in_file 'module is not loaded' watched-err
	for words in "run echo" status list "status tlock" monitor \
		"monitor tlock"; do
		run 66 "$tlock" $words
		[[ ! -s out ]]
		in_file '^tlock: /dev/tlock: .*module is not loaded: .*insmod tlock.ko' err
	done
	run 66 "$tlock" list --json
	check 'j == {"locks": []}' out
}

### Run them

skip() {
	echo "$*" >skipped
	exit 0
}

tests=("$@")
for name; do
	declare -F "test_$name" >/dev/null || usage "no test '$name'"
done
if ((!$#)); then
	mapfile -t tests < <(sed -n 's/^test_\([a-z0-9_]*\)() {$/\1/p' \
		"$here/command.sh")
fi
echo "TAP version 13"
echo "1..${#tests[@]}"
number=0
failed=0
for name in "${tests[@]}"; do
	number=$((number + 1))
	rm -rf ./*
	(
		# Kill what a failed test left running. jobs also lists
		# processes that have just ended.
		trap 'jobs -p | xargs -r kill -9 || :
			[[ ! -p fifo ]] || echo 1<>fifo' EXIT
		set -ex
		"test_$name"
	) >../"${work##*/}.log" 2>&1
	status=$?
	mv ../"${work##*/}.log" log
	until_ok delete_locks || status=$?
	# Tests must not leave the lock abandoned or held
	"$tlock" run -w 120 true 2>/dev/null || status=$?
	if ((status)); then
		echo "not ok $number $name"
		sed 's/^/# /' log | tail -n 60
		failed=1
	elif [[ -e skipped ]]; then
		echo "ok $number $name # SKIP $(<skipped)"
	else
		echo "ok $number $name"
	fi
done
exit $failed
