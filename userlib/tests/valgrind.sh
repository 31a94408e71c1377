#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# userlib/tests/valgrind.sh: run the library and the command under valgrind.
# Prints KTAP. Needs the module loaded.

set -uo pipefail

top=$(dirname "$(readlink -f "$0")")/../..
. "$top/scripts/options"
operands 0 0 "$@"
tlock=$top/build/userlib/tlock
unset TLOCK
errors=$(mktemp)
trap 'rm -f "$errors"' EXIT

number=0
failed=0
# clean NAME COMMAND...: it exits with 0, without memory errors and leaks
clean() {
	local name=$1 status

	shift
	number=$((number + 1))
	valgrind --quiet --leak-check=full --show-leak-kinds=all \
		--errors-for-leak-kinds=all --track-fds=no --error-exitcode=99 \
		"$@" >"$errors" 2>&1
	status=$?
	if [[ $status -eq 0 ]]; then
		echo "ok $number $name"
		return
	fi
	echo "not ok $number $name"
	sed 's/^/# /' "$errors"
	echo "# exit status $status"
	failed=1
}

echo "TAP version 13"
echo "1..4"
clean library "$top/build/userlib-tests/obj/leaks"
clean tlock_run "$tlock" run -w 1 -j leaks true
clean tlock_status "$tlock" status --json --output-all
clean tlock_list "$tlock" list
exit $failed
