#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# trace.sh: the tracepoints of tlock(4), as trace-cmd(1) sees them. Prints KTAP.
# Run it as root by scripts/vm. It needs the programs that scripts/build builds.

set -u

here=$(dirname "$(readlink -f "$0")")
top=$(readlink -f "$here/../..")
. "$top/scripts/options"
. "$top/scripts/try"
operands 0 0 "$@"
export PATH=$top/build/userlib:$PATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

# record OPTION... -- COMMAND...: write the events while the command runs to the
# file "events"
record() {
	if ! trace-cmd record -q -o trace.dat "$@" >record.log 2>&1; then
		cat record.log
		return 1
	fi
	trace-cmd report -q -i trace.dat >events
}

# event PATTERN: whether the report has such an event
event() {
	grep -q "$1" events || {
		echo "no '$1' in:"
		cat events
		return 1
	}
}

every_event() {
	record -e 'tlock:*' -- tlock run --job 'set range' -- \
		sh -c 'tlock run --nonblock --quiet --job refused -- true; true' &&
		event "tlock_acquired: .*tlock job='set range' token=[1-9][0-9]* ticket=0 pid=[1-9][0-9]* uid=0 comm=sh" &&
		event "tlock_timed_out: .*tlock job='refused' token=0" &&
		event "tlock_released: .*tlock job='set range' token=[1-9]" &&
		is 3 grep -c tlock_ events
}

# Of one kind and one job only
filtered() {
	record -e tlock:tlock_released -f 'job == "second"' -- \
		sh -c 'tlock run --job first -- true; tlock run --job second -- true' &&
		event "tlock_released: .*job='second'" &&
		is 1 grep -c tlock_ events
}

# Another lock's events have its name
named() {
	tlock create psu && record -e 'tlock:*' -- \
		tlock run --device psu --job voltage -- true &&
		event "tlock_acquired: .*tlock-psu job='voltage'" &&
		tlock delete psu
}

# A grant is revoked while its command runs
revoked() {
	record -e tlock:tlock_revoked -- \
		sh -c "tlock run --job hung -- sh -c 'tlock revoke tlock'; true" &&
		event "tlock_revoked: .*tlock job='hung' token=[1-9][0-9]* ticket=0 pid=[1-9][0-9]* uid=0" &&
		is 1 grep -c tlock_ events
}

failed=0
echo "TAP version 13"
echo "1..4"
try every_event every_event
try filtered filtered
try named named
try revoked revoked
exit $failed
