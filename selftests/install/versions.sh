#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# selftests/install/versions.sh: run this tree's library, command and Python
# package on older modules, and older ones on this tree's module. Prints KTAP.
#
# What both sides know must work. What the older side lacks must fail with an
# error that says so, and leave nothing held. The older versions are built in
# build/versions. selftests/install/older says what they are:
#
#   before   the version before
#   leases   it knows no leases. As long as the ABI is the one of the version
#            before, only this one shows how an older side fails
#   events   only its module: it tests what the newer side does without events,
#            and that needs no second library

set -uo pipefail

here=$(dirname "$(readlink -f "$0")")
tree=$(readlink -f "$here/../..")
. "$tree/scripts/options"
. "$tree/scripts/try"
trees=$tree/build/versions
number=${TLOCK_NUMBER:-0}
failed=0

# knows OLD WORD: whether the header of that version has a word
knows() {
	grep -qw "$2" "$trees/$1/uapi/linux/tlock.h"
}

### In the virtual machine

new=$tree

# load KO: load this module, in place of any other
load() {
	[[ ! -e /sys/module/tlock ]] || rmmod tlock || return
	insmod "$1" && [[ -c /dev/tlock ]]
}

# module_of OLD: the path of its module, as it was built here
module_of() {
	echo "$trees/$1/build/module/$(uname -r)/tlock.ko"
}

# agent BUILT LIBRARY TEST...: the agent that was built in one tree, with the
# shared library of another
agent() {
	LD_LIBRARY_PATH=$2/build/userlib "$1/build/versions/agent" "${@:3}"
}

# python TREE TEST...: the agent with the tree's package
python() {
	PYTHONPATH=$1/userlib/python PYTHONDONTWRITEBYTECODE=1 \
		/usr/bin/python3 -W error "$here/agent.py" "${@:2}"
}

# prints WANTED COMMAND...: its output matches the extended regular expression
prints() {
	local printed

	printed=$("${@:2}" 2>&1)
	[[ $printed =~ $1 ]] || {
		echo "wanted '$1', got '$printed'"
		return 1
	}
}

# soon COMMAND...: wait until it succeeds; fail after a minute
soon() {
	local end=$((SECONDS + 60))

	until "$@" >failure; do
		((SECONDS < end)) || {
			echo "still fails: $*"
			cat failure
			return 1
		}
		sleep 0.1
	done
}

# exits STATUS COMMAND...: its output goes to said
exits() {
	local status

	"${@:2}" >said 2>&1
	status=$?
	[[ $status -eq $1 ]] || {
		echo "exit status $status, not $1: ${*:2}"
		cat said
		return 1
	}
}

said() {
	grep -E "$1" said || {
		echo "wanted '$1', got: $(<said)"
		return 1
	}
}

# at_the_end: of the test, whatever its outcome, end what it has started
at_the_end() {
	# shellcheck disable=SC2046 # one word each
	trap 'kill $(jobs -p) 2>/dev/null' EXIT
}

# watch TLOCK: record the events in the background, until end_watch
watch() {
	at_the_end
	"$1" monitor >events 2>&1 &
	watcher=$!
	soon watched "$1"
}

# watched TLOCK: whether an event is seen
watched() {
	"$1" run true && grep -q acquired events
}

end_watch() {
	kill "$watcher"
	wait "$watcher"
}

# hold TLOCK JOB [OPTION...]: hold the lock in the background, until let_go
hold() {
	rm -f gate
	mkfifo gate
	exec {gate}<>gate
	at_the_end
	"$1" run -j "$2" "${@:3}" sh -c "read -r _ <gate" \
		>holder 2>&1 &
	runner=$!
	soon prints "tlock +held +$2 " "$1" status tlock
}

# let_go STATUS: the command ends by itself, and tlock run with this status
let_go() {
	local status

	echo >&"$gate"
	wait "$runner"
	status=$?
	[[ $status -eq $1 ]] || {
		echo "tlock run: exit status $status: $(<holder)"
		return 1
	}
}

is_free() {
	prints 'tlock +free ' "$1" status tlock
}

# The command of a tree: acquire, timeout, job, status, monitor, locks
command_works() {
	local tlock=$1/build/userlib/tlock waiter

	watch "$tlock" && hold "$tlock" held || return
	exits 1 "$tlock" run -w 0 true && said 'held by .*job.*held' || return
	exits 1 "$tlock" run -w 0.1 true && said 'timed out' || return
	"$tlock" run -j next true &
	waiter=$!
	soon prints 'next' "$tlock" status tlock || return
	let_go 0 && wait "$waiter" && soon grep -q 'released.*next' events ||
		return
	end_watch
	sed -E 's/.* (waiting|acquired|released|timed-out) .*/\1/' events |
		grep -v '^TIME' | xargs >said
	said 'acquired .*waiting timed-out waiting released acquired released' ||
		return
	"$tlock" create psu && prints psu "$tlock" list &&
		exits 0 "$tlock" run -d psu true && "$tlock" delete psu &&
		is_free "$tlock"
}

# The holder and the watcher know nothing of revocation, but the module does
command_loses() {
	local tlock=$1/build/userlib/tlock

	watch "$tlock" && hold "$tlock" hung &&
		exits 0 "$new/build/userlib/tlock" revoke tlock &&
		is_free "$tlock" && exits 0 "$tlock" run -j after true || return
	# Its event has a kind of its own, which the watcher survives
	soon grep -q 'released.*after' events || return
	end_watch
	if "$tlock" revoke --help >/dev/null 2>&1; then
		let_go 75 && grep -q ' revoked' events
	else
		# Its command goes on, and it says at the end what happened
		let_go 0 && grep -q 'released before .* ended' holder
	fi
}

# says_version: what was said names the version of the module, and a remedy
says_version() {
	said "tlock: /dev/tlock: the tlock module, version $(</sys/module/tlock/version), .*: install the module"
}

command_without_leases() {
	local tlock=$new/build/userlib/tlock

	exits 71 "$tlock" run --lease 30 touch "$PWD/ran" && says_version &&
		is_free "$tlock" && not test -e ran || return
	hold "$tlock" held && exits 71 "$tlock" revoke tlock && says_version &&
		prints 'tlock +held +held ' "$tlock" status tlock && let_go 0
}

command_without_events() {
	local tlock=$new/build/userlib/tlock

	exits 66 timeout 60 "$tlock" monitor && says_version &&
		hold "$tlock" held || return
	exits 1 "$tlock" run -w 0 true && said 'held by .*job.*held' &&
		let_go 0 && is_free "$tlock"
}

command_without_gates() {
	local tlock=$new/build/userlib/tlock

	exits 71 "$tlock" create --gated psu && says_version &&
		not test -e /dev/tlock-psu && is_free "$tlock" || return
	# An older lock has no gate
	exits 0 "$tlock" status --json && said '"gate": *null'
}

# on_new_module OLD: the older userland
on_new_module() {
	local old=$trees/$1

	try "new_module_$1" load "$TLOCK_KO"
	try "new_module_$1_agent_waits" agent "$old" "$old" waits
	try "new_module_$1_agent_events" agent "$old" "$old" events
	try "new_module_$1_agent_loses" agent "$old" "$old" loses "$revoke"
	try "new_module_$1_agent_new_library_waits" agent "$old" "$new" waits
	try "new_module_$1_agent_new_library_events" agent "$old" "$new" events
	try "new_module_$1_agent_new_library_loses" \
		agent "$old" "$new" loses "$revoke"
	try "new_module_$1_python_waits" python "$old" waits
	try "new_module_$1_python_events" python "$old" events
	try "new_module_$1_python_loses" python "$old" loses "$revoke"
	try "new_module_$1_command_works" command_works "$old"
	try "new_module_$1_command_loses" command_loses "$old"
	# Its own tests of the library, and those of the Python class
	for program in "$old"/build/userlib-tests/libtlock* \
		"$old"/userlib/python/tests/test_lock.py; do
		try "new_module_$1_${program##*/}" own_tests "$1" "$program"
	done
}

# Own tests of an older version that fail, and why: see broken
declare -A excepted=(
	[leases]='WhoHasIt\.test_status'
)

# own_tests OLD PROGRAM: it prints KTAP
own_tests() {
	local printed status

	printed=$("$2" 2>&1)
	status=$?
	[[ $status -ne 0 ]] || return 0
	echo "$printed"
	[[ $status -eq 1 ]] || return
	# It came to its end, and no other test failed
	grep -qx "1\.\.$(grep -cE '^(not )?ok ' <<<"$printed")" <<<"$printed" &&
		not grep -vE "^not ok [0-9]+ ${excepted[$1]:-^$}\$" \
			<(grep "^not ok " <<<"$printed")
}
revoke="$new/build/userlib/tlock revoke tlock"

# on_old_module OLD: this tree's userland
on_old_module() {
	local old=$trees/$1

	try "$1_module" load "$(module_of "$1")"
	try "$1_module_agent_waits" agent "$new" "$new" waits
	try "$1_module_python_waits" python "$new" waits
	if knows "$1" TLOCK_ASYNC; then
		try "$1_module_agent_events" agent "$new" "$new" events
		try "$1_module_python_events" python "$new" events
		try "$1_module_command_works" command_works "$new"
		# An agent of that version: only the library is newer
		try "$1_module_its_agent_new_library_waits" \
			agent "$old" "$new" waits
		try "$1_module_its_agent_new_library_events" \
			agent "$old" "$new" events
	else
		try "$1_module_agent_without_events" \
			agent "$new" "$new" without_events
		try "$1_module_python_without_events" python "$new" without_events
		try "$1_module_command_without_events" command_without_events
	fi
	if ! knows "$1" TLOCK_IOC_GATE; then
		try "$1_module_command_without_gates" command_without_gates
	fi
	if knows "$1" TLOCK_IOC_REVOKE; then
		try "$1_module_agent_loses" agent "$new" "$new" loses "$revoke"
		try "$1_module_python_loses" python "$new" loses "$revoke"
		try "$1_module_command_loses" command_loses "$new"
		return
	fi
	try "$1_module_python_without_leases" python "$new" without_leases
	try "$1_module_command_without_leases" command_without_leases
	if knows "$1" TLOCK_ASYNC; then
		try "$1_module_agent_without_leases" \
			agent "$new" "$new" without_leases
	fi
}

case ${1:-} in
on_new_module | on_old_module)
	# Relative paths are those of the files that the tests write
	mkdir /tmp/versions && cd /tmp/versions || exit
	for old in "${@:2}"; do
		"$1" "$old"
	done
	exit $failed
	;;
esac

### On the host

operands 0 0 "$@"
cd "$tree" || exit
"$tree/scripts/setup" git make gcc g++ libc6-dev binutils libsmartcols-dev \
	python3 >&2 || exit

# build_agent TREE: the agent, with the tree's header and shared library
build_agent() {
	mkdir -p "$1/build/versions"
	gcc -std=gnu11 -Wall -Wextra -O2 -I"$1/userlib/lib" -I"$1/uapi" \
		-o "$1/build/versions/agent" "$here/agent.c" \
		-L"$1/build/userlib" -ltlock
}

# build_userland OLD: with its own Makefiles
build_userland() {
	make -s -C "$trees/$1/userlib" && build_agent "$trees/$1" &&
		make -s -C "$trees/$1/userlib/tests" KSFT="$ksft"
}

# exports TREE: what programs link to
exports() {
	local library=$1/build/userlib/libtlock.so

	readelf -d "$library" | grep -o 'soname: .*'
	nm -D --defined-only --with-symbol-versions "$library" |
		sed 's/^[0-9a-f]* //'
}

# lost FILE FILE: print the lines of the first that the second lacks, and fail
lost() {
	not grep -vxFf "$2" "$1"
}

same_symbols() {
	exports "$trees/$1" >"$trees/$1.exports" &&
		exports "$tree" >"$trees/new.exports" &&
		lost "$trees/$1.exports" "$trees/new.exports"
}

# layout TREE: the value of each constant of the header, and the offset and size
# of each field. What is reserved has no meaning yet.
layout() {
	local header=$1/uapi/linux/tlock.h program=$trees/layout

	{
		echo '#include <stdio.h>'
		echo '#include <stddef.h>'
		echo '#include <linux/tlock.h>'
		echo 'int main(void) {'
		sed -nE '
			s/^#define (TLOCK_[A-Z_]+)[ \t].*/\1/p
			s/^\t(TLOCK_EVENT_[A-Z_]+).*/\1/p' "$header" |
			sed 's/.*/printf("& %#llx\\n", (unsigned long long)&);/'
		awk '
			/^struct .*{$/ { name = $2 }
			/^}/ { name = "" }
			name && /^\t.*;/ {
				sub(/(\[.*)?;.*/, "")
				if ($NF == "reserved")
					next
				printf "printf(\"%s.%s: %%zu + %%zu\\n\", ", name, $NF
				printf "offsetof(struct %s, %s), ", name, $NF
				printf "sizeof(((struct %s *)0)->%s));\n", name, $NF
			}' "$header"
		echo '}'
	} >"$program.c"
	gcc -I"$1/uapi" -o "$program" "$program.c" && "$program"
}

# Where the ABI broke a promise, on purpose: an extended regular expression of
# what changed, and why
declare -A broken=(
	# "revoked" was put before these counters. They are only shown, no
	# version had been released, and the size is the same, so that an older
	# program shows each with the name of the next
	[leases]='tlock_status\.(yielded|(wait|hold)_ns_(total|max)):'
	[events]='tlock_status\.(yielded|(wait|hold)_ns_(total|max)):'
)

same_layout() {
	layout "$trees/$1" | grep -vE "${broken[$1]:-^$}" >"$trees/$1.layout" &&
		layout "$tree" >"$trees/new.layout" &&
		lost "$trees/$1.layout" "$trees/new.layout" &&
		[[ $(wc -l <"$trees/$1.layout") -ge 30 ]]
}

# guest FUNCTION OLD...: run it in a virtual machine, which goes on counting
guest() {
	local line

	while IFS= read -r line; do
		echo "$line"
		[[ ! $line =~ ^(not )?ok ]] || number=$((number + 1))
		[[ $line != "not ok "* ]] || failed=1
	done < <(TLOCK_NUMBER=$number "$tree/scripts/vm" --no-load \
		--timeout 1800 --kernel "$image" -- "$here/${0##*/}" "$@" 2>&1 ||
		echo "not ok $((number + 1)) guest # $?")
}

image=$("$tree/scripts/kernel") || exit
ksft=$("$tree/scripts/linux-source")/tools/testing/selftests || exit
echo "TAP version 13"
try new_userland make -s -C userlib
try new_agent build_agent "$tree"
olds=()
for old in before leases events; do
	before=$failed
	failed=0
	try "$old" "$here/older" "$old" "$trees/$old"
	[[ $failed -ne 0 ]] ||
		try "${old}_module_is_built" "$trees/$old/scripts/module" "$image"
	if [[ $failed -eq 0 && $old != events ]]; then
		try "${old}_userland_is_built" build_userland "$old"
		[[ $failed -ne 0 ]] || try "${old}_symbols_stay" same_symbols "$old"
	fi
	if [[ $failed -eq 0 ]]; then
		try "${old}_layout_stays" same_layout "$old"
		olds+=("$old")
	fi
	((failed |= before))
done
[[ ${#olds[@]} -eq 0 ]] || guest on_old_module "${olds[@]}"
mapfile -t olds < <(printf '%s\n' "${olds[@]}" | grep -vx events)
[[ ${#olds[@]} -eq 0 ]] || guest on_new_module "${olds[@]}"
echo "1..$number"
exit $failed
