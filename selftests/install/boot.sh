#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# TLOCK_SUITE=SUITE selftests/install/boot.sh: boot a machine on which the
# packages, one file with the names of the locks and the example of a unit are
# installed, and see an agent hold its lock, crash, and lose it; and see tlockd
# serve a gate, though there is no cluster. Prints KTAP.

tree=$(readlink -f "$(dirname "$0")/../..")
# shellcheck source=selftests/install/machine
. "$tree/selftests/install/machine"

### On the machine

unit=psu-agent.service
device='dev-tlock\x2dpsu.device'

property() {
	systemctl show -P "$1" "$2"
}

# agent_holds: the agent has the lock, since it was started last
agent_holds() {
	prints "held agent $(property MainPID "$unit")" \
		tlock status --raw -o STATE,JOB,PID psu
}

# agent_says TEXT: the agent has written this line to the journal
agent_says() {
	journalctl --sync
	prints "$1" journalctl -u "$unit" -o cat
}

# noted: the monitor, which may just be starting, logs a job
noted() {
	tlock run --job noted true &&
		journalctl --sync &&
		prints noted journalctl -u tlock-monitor.service
}

in_order() {
	local there started

	there=$(property ActiveEnterTimestampMonotonic "$device")
	started=$(property ExecMainStartTimestampMonotonic "$unit")
	echo "the device was there at $there, the agent started at $started"
	((0 < there && there <= started))
}

started_again() {
	[[ $(property NRestarts "$unit") == 1 && $(property MainPID "$unit") != "$1" ]] &&
		agent_holds
}

gate_is() {
	is "$1" cat /sys/class/tlock/tlock-shared/gate
}

# serves: tlockd may do all that it needs to, and anybody can ask it
serves() {
	gate_is shut && prints "no lease" setpriv --reuid 65534 --regid 65534 \
		--clear-groups tlock status --cluster
}

daemon() {
	try daemon_waits_for_its_configuration gate_is unserved
	echo "endpoints = http://127.0.0.1:2379" >/etc/tlockd.conf
	try daemon_starts systemctl start tlockd
	try daemon_serves until_ok serves
	systemctl kill --signal KILL tlockd
	try daemon_is_back until_ok is 1 property NRestarts tlockd
	try daemon_serves_again until_ok serves
	echo "ttl = soon" >>/etc/tlockd.conf
	try invalid_configuration_is_refused not systemctl restart tlockd
	try daemon_is_not_tried_again is 0 property NRestarts tlockd
	sed -i /ttl/d /etc/tlockd.conf
	try daemon_starts_again systemctl restart tlockd
	# It keeps the module from being unloaded
	try daemon_ends systemctl stop tlockd
}

at_first_boot() {
	local agent

	try loaded loaded
	try locks_are_there is $'tlock\ntlock-lakeshore\ntlock-psu\ntlock-shared' \
		ls /sys/class/tlock -I '*_lock'
	try agent_holds until_ok agent_holds
	try in_order in_order
	try no_root not is 0 stat -c %u "/proc/$(property MainPID "$unit")"
	try other_locks_are_denied until_ok agent_says \
		"/dev/tlock-lakeshore: Operation not permitted"

	agent=$(property MainPID "$unit")
	kill -KILL "$agent"
	try starts_again until_ok started_again "$agent"

	daemon

	# Without the lock, no agent
	systemctl stop "$unit"
	try unloads rmmod tlock
	try is_not_started not timeout 10 systemctl start "$unit"
	modprobe tlock
	try starts_with_the_lock until_ok agent_holds
	systemctl stop "$unit"
	try lock_is_free until_ok is free \
		tlock status --raw -n -o STATE psu

	try log_is_kept systemctl enable --now tlock-monitor.service
	try job_is_in_the_journal until_ok noted
}

at_second_boot() {
	try agent_holds until_ok agent_holds
	try log_goes_on is active systemctl is-active tlock-monitor.service
	try daemon_serves until_ok serves
}

begin "$@"

### On the host

# As README.md and the unit say
set_up() {
	local example=$root/usr/share/doc/tlock/examples/tlock-agent.service

	install_packages || return
	echo "options tlock names=psu,lakeshore gated=shared" \
		>"$root/etc/modprobe.d/tlock.conf"
	cp "$example" "$root/etc/systemd/system/$unit" &&
		cat >"$root/usr/local/bin/psu-agent" <<-'END' &&
			#!/bin/bash
			: >>/dev/tlock-lakeshore
			exec sleep infinity
		END
		chmod 755 "$root/usr/local/bin/psu-agent" &&
		systemctl --root "$root" enable "$unit" &&
		make_disk
}

try packages_are_built build_packages
try machine_is_set_up set_up
if ((failed == 0)); then
	boot "$image" at_first_boot
	boot "$image" at_second_boot
fi
echo "1..$number"
exit $failed
