#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# TLOCK_SUITE=SUITE selftests/install/newcomer.sh: on a machine with nothing but
# the Debian release, run the commands of README.md's section "Install it",
# exactly as written there. Prints KTAP.

tree=$(readlink -f "$(dirname "$0")/../..")
# shellcheck source=selftests/install/machine
. "$tree/selftests/install/machine"

### On the machine

# commands: those of the section, in order
commands() {
	sed -n '/^## Install it$/,/^## /s/^    //p' README.md
}

holds() {
	prints 'held first\x20try' tlock status --raw --noheadings -o STATE,JOB psu
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
		try lock_is_there test -c /dev/tlock-psu
		;;
	esac
}

at_boot() {
	local command

	export DEBIAN_FRONTEND=noninteractive INITRD=No
	while IFS= read -r command; do
		case $command in
		"tlock run "*)
			bash -c "$command" &
			try holds until_ok holds
			wait $!
			try ended is 0 echo $?
			try free is free tlock status --raw -n -o STATE psu
			continue
			;;
		esac
		try "$command" bash -c "$command"
		look_at "$command"
	done < <(commands)
}

at_second_boot() {
	try loaded loaded
	try lock_is_there until_ok test -c /dev/tlock-psu
}

begin "$@"

### On the host

prepare() {
	make_root && make_disk
}

try commands_found [ "$(cd "$tree" && commands | grep -c .)" -ge 5 ]
try machine_is_made prepare
if ((failed == 0)); then
	boot "$image" at_boot
	boot "$image" at_second_boot
fi
echo "1..$number"
exit $failed
