#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Tests of scripts/vm, run on the host. Prints KTAP. Any arguments are options
# for all guests, such as --kernel. Two guests run at a time.
#
# shellcheck disable=SC2317 # try calls them

set -u

scripts=$(readlink -f "$(dirname "$(readlink -f "$0")")/../../scripts")
. "$scripts/options"
. "$scripts/try"
case ${1:-} in
-h | --help | [!-]*) operands 0 0 "$@" ;;
esac
options=("$@")
# scripts/vm rejects options that it does not know
"$scripts/vm" "${options[@]}" --help >/dev/null || exit
(($#)) || options=(--kernel "$("$scripts/kernel")") || exit 1

# In /tmp, where guests see only their current directory
dir=$(mktemp -d /tmp/tlock-test.XXXXXX)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/here" "$dir/there"
cd "$dir/here" || exit 1
head -c 1000000 /dev/urandom >data.1
head -c 1000000 /dev/urandom >data.2
echo host >file

### Run guests: each leaves NAME.status, NAME.out and NAME.err. What vm leaves
### is in a directory NAME, which the environment of its processes names, too

start() {
	local name=$1

	shift
	mkdir "$name"
	# Background processes ignore SIGINT by default
	TMPDIR=$PWD/$name TLOCK_TEST=$'a "b"\nc' \
		exec env --default-signal=INT \
		"$scripts/vm" "${options[@]}" "$@" >"$name.out" 2>"$name.err"
}

guest() {
	(start "$@")
	echo $? >"$1.status"
}

# killed SIGNAL: end vm by a signal while its guest boots
killed() {
	local name=$1 pid

	start "$name" --no-load -- sleep 1000 &
	pid=$!
	until [[ -s $(echo "$name"/*.log) ]]; do
		kill -0 $pid || break
		sleep 0.1
	done
	kill -s "$name" $pid
	wait $pid
	echo $? >"$name.status"
} 2>/dev/null

# shellcheck disable=SC2016 # for the guest's shell
{
	{
		guest seven -- bash -c 'pwd; ls ..; printf "%s\0" "$@"
			printenv TLOCK_TEST; test -c /dev/tlock && echo loaded
			test -f "$TLOCK_KO" && echo built; exit 7' \
			bash '' 'a b' $'c\nd' "'\"\$HOME*" $'\377'
		guest panic -- sh -c 'echo before; echo c >/proc/sysrq-trigger'
		guest warning -- sh -c 'echo "<4>WARNING: CPU: 0" >/dev/kmsg'
		killed INT
		killed KILL
	} &
	{
		guest hang --timeout 15 -- sh -c 'echo before; exec sleep 1000'
		guest bytes --no-load -- sh -c 'test ! -e /dev/tlock || exit
			cat data.1; cat data.2 >&2; true >/dev/stderr
			for file in file new /etc/tlock-test '"$scripts"'/new
			do echo guest >$file; done
			sleep 1000 & kill -9 $$'
		# The first program in this guest sleeps
		guest late --timeout 5 \
			--append 'rdinit=/bin/busybox -- sleep 1000' -- true
		guest tainted -- sh -c 'echo 512 >/proc/sys/kernel/tainted'
		killed TERM
	} &
	wait
}

### Judge

status() {
	local name

	for name in "${@:2}"; do
		cat "$name.err"
		[[ $(<"$name.status") == "$1" ]] || {
			echo "exit status $(<"$name.status")"
			return 1
		}
	done
}

# complains NAME STATUS PATTERN: a guest ended with this status, printed where
# its log is, and left nothing else; the log has a line that matches
complains() {
	local log

	status "$2" "$1" && log=$(sed -n \
		"s/^vm: the kernel's log is \(.*\); from it:/\1/p" "$1.err") &&
		grep -a "$3" "$log" && [[ $(echo "$1"/*) == "$1/${log##*/}" ]]
}

exact() {
	diff -a seven.out <(
		pwd
		echo here
		printf '%s\0' '' 'a b' $'c\nd' "'\"\$HOME*" $'\377'
		printf '%s\n' $'a "b"\nc' loaded built
	)
}

starts_twice() {
	status 125 late &&
		[[ $(grep -c 'boots again$' late.err) == 1 ]] &&
		grep -q 'did not start within 5 seconds$' late.err
}

kept_apart() {
	cmp bytes.out data.1 && cmp bytes.err data.2
}

nothing_written() {
	ls new /etc/tlock-test "$scripts/new"
	[[ $(<file) == host && ! -e new && ! -e /etc/tlock-test &&
		! -e $scripts/new ]]
}

processes() {
	grep -lsaF "TMPDIR=$PWD/$1" /proc/[0-9]*/environ
}

# nothing_left NAME...: the runs left no files and no processes. After kill -9,
# files are left, and processes take a moment to end.
nothing_left() {
	local name

	for name; do
		for _ in {1..20}; do
			processes "$name" || break
			sleep 0.1
		done
		! processes "$name" || return
		[[ $name == KILL || -z $(ls -A "$name") ]] || {
			ls -lA "$name"
			return 1
		}
	done
}

usage() {
	"$scripts/vm" "$@" >usage.out 2>&1
	[[ $? == 2 && $(wc -l <usage.out) == 1 ]] || {
		cat usage.out
		return 1
	}
}

bad_usage() {
	usage && usage --cpus && usage --cpus none -- true &&
		usage --memory 1 -- true && usage --timeout 0 -- true &&
		usage --none -- true
}

failed=0
echo "TAP version 13"
echo "1..15"
try "exit_status" status 7 seven
try "signal" status 137 bytes
try "directory_arguments_environment_module" exact
try "output" kept_apart
try "nothing_written_to_the_host" nothing_written
try "panic" complains panic 125 "Kernel panic"
try "warning_in_the_log" complains warning 125 "WARNING: CPU: 0"
try "warning_by_taint" complains tainted 125 "tlock-vm: end"
try "hang" complains hang 124 "sysrq: Show Blocked State"
try "does_not_start" starts_twice
try "output_before_the_end" diff panic.out hang.out
try "interrupted" status 130 INT
try "terminated" status 143 TERM
try "nothing_left_behind" nothing_left seven bytes INT TERM KILL
try "bad_usage" bad_usage
exit $failed
