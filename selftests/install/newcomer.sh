#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# TLOCK_SUITE=SUITE selftests/install/newcomer.sh: on a machine with nothing but
# the Debian release, run the commands of README.md's sections "Install it" and
# "One lock, several hosts", exactly as written there. Here, the second one's hosts
# and cluster are this machine. Prints KTAP.

tree=$(readlink -f "$(dirname "$0")/../..")
# shellcheck source=selftests/install/machine
. "$tree/selftests/install/machine"

### On the machine

# commands HEADING: those of this section, in order, but not those that show what
# happens meanwhile
commands() {
	sed -n "/^## $1\$/,/^\(## \|Meanwhile\)/s/^    //p" README.md
}

# holds LOCK: the agent of the last command does
holds() {
	prints 'held first\x20try' tlock status --raw --noheadings -o STATE,JOB "$1"
}

# holds_for_all_hosts: the same, as the cluster has it
holds_for_all_hosts() {
	prints "tlock-spectrometer $(uname -n) held " \
		sh -c "tlock status --cluster | tr -s ' '"
}

# agent COMMAND: one that the section ends with
agent() {
	local lock=${1#*-d }

	lock=${lock%% *}
	bash -c "$1" &
	try holds until_ok holds "$lock"
	[[ $lock != spectrometer ]] ||
		try holds_for_all_hosts until_ok holds_for_all_hosts
	wait $!
	try ended is 0 echo $?
	try free is free tlock status --raw -n -o STATE "$lock"
}

look_at() {
	case $1 in
	scripts/package)
		try wheel_is_there test -s build/packages/tlock-"$version"-*.whl
		;;
	"apt-get install "*)
		udevadm settle
		try loaded loaded
		try later_headers_come dpkg-query -W "linux-headers-$(dpkg --print-architecture)"
		;;
	"tlock create "*)
		udevadm settle
		try lock_is_there test -c "/dev/tlock-${1##* }"
		;;
	# That is what the comment of this command asks for
	"cp "*tlockd.conf*)
		sed -i 's|^endpoints = .*|endpoints = http://127.0.0.1:2379|
			/^\(ca\|cert\|key\) /d' /etc/tlockd.conf
		;;
	esac
}

follow() {
	local command

	while IFS= read -r command; do
		case $command in
		"tlock run "*) agent "$command" ;;
		*)
			try "$command" bash -c "$command"
			look_at "$command"
			;;
		esac
	done < <(commands "$1")
}

at_boot() {
	export DEBIAN_FRONTEND=noninteractive INITRD=No
	follow "Install it"
	try cluster_comes apt-get install --no-install-recommends etcd-server
	try cluster_runs until_ok systemctl is-active etcd
	follow "One lock, several hosts"
}

at_second_boot() {
	try loaded loaded
	try lock_is_there until_ok test -c /dev/tlock-psu
	try gated_lock_is_there until_ok test -c /dev/tlock-spectrometer
	try gate_opens tlock run -d spectrometer -w 60 true
}

begin "$@"

### On the host

prepare() {
	make_root && make_disk
}

# commands_found N HEADING: there are at least so many
commands_found() {
	[ "$(cd "$tree" && commands "$2" | grep -c .)" -ge "$1" ]
}

try commands_found commands_found 5 "Install it"
try commands_for_hosts_found commands_found 6 "One lock, several hosts"
try machine_is_made prepare
if ((failed == 0)); then
	boot "$image" at_boot
	boot "$image" at_second_boot
fi
echo "1..$number"
exit $failed
