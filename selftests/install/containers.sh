#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# TLOCK_SUITE=SUITE selftests/install/containers.sh: run agents in containers,
# which have the wheel and no device but their lock, on a machine on which the
# packages are installed: what the host shows of them, and what they say when
# the device file is missing, forbidden or stale. Prints KTAP.

tree=$(readlink -f "$(dirname "$0")/../..")
# shellcheck source=selftests/install/machine
. "$tree/selftests/install/machine"

### On the machine

# The containers' root directory
files=/srv/image
# An agent that holds the lock until its standard input ends
agent='
import sys
from tlock import TimeoutLock
with TimeoutLock().acquire_timeout(timeout=0, job="expose") as acquired:
    if not acquired:
        sys.exit("held for %s" % acquired.blocker.job)
    print("taken after a crash" if acquired.abandoned else "taken", flush=True)
    sys.stdin.read()
'

dialout=$(getent group dialout | cut -d : -f 3)

# in_podman OPTION... [- COMMAND...]: run the agent, or COMMAND, as README.md says
in_podman() {
	local options=() command=(/usr/bin/python3 -c "$agent")

	while (($#)) && [[ $1 != - ]]; do
		options+=("$1")
		shift
	done
	(($# == 0)) || command=("${@:2}")
	podman run --rm --interactive --network none --log-driver none \
		--user 1000 --group-add "${group-$dialout}" \
		--env TLOCK=psu "${options[@]}" --rootfs "$files":O "${command[@]}"
}

# in_namespaces COMMAND...: in namespaces for process IDs, users and mounts, with
# nothing in /dev but the lock
in_namespaces() {
	# shellcheck disable=SC2016 # the inner shell expands them
	unshare --user --map-root-user --mount --pid --fork --mount-proc \
		sh -c 'touch /tmp/node &&
		mount --bind /dev/tlock-psu /tmp/node &&
		mount -t tmpfs tmpfs /dev &&
		touch /dev/tlock-psu &&
		mount --bind /tmp/node /dev/tlock-psu &&
		export TLOCK=psu && exec "$@"' sh "$@"
}

# state: of the lock, as the host sees it: whether it is held, for what, by which
# process
state() {
	tlock status --raw --noheadings -o STATE,JOB,PID,COMMAND psu
}

# held_by COMMAND: the lock is held by a process in a container
held_by() {
	local pid

	prints "held expose" state &&
		prints " $1" state &&
		pid=$(tlock status --raw --noheadings -o PID psu) &&
		not [ "/proc/$pid/ns/pid" -ef /proc/self/ns/pid ]
}

end_holder() {
	kill -KILL "$(tlock status --raw --noheadings -o PID psu)"
}

at_boot() {
	try own_namespaces prints taken in_namespaces tlock run -n echo taken
	in_namespaces tlock run --job expose sleep 1000 &
	try host_shows_it until_ok held_by sleep
	end_holder
	try it_passes_on until_ok tlock run -n -d psu true

	mkfifo /srv/input
	exec 7<>/srv/input
	try agent_takes_it prints taken \
		in_podman --device /dev/tlock-psu </dev/null
	in_podman --device /dev/tlock-psu <&7 &
	try host_shows_the_agent until_ok held_by python3
	try another_is_refused fails "held for expose" \
		in_podman --device /dev/tlock-psu </dev/null
	end_holder
	wait
	try told_of_the_crash prints "taken after a crash" \
		in_podman --device /dev/tlock-psu </dev/null

	try says_missing fails "pass the device in (docker: --device)" \
		in_podman </dev/null
	try says_forbidden fails "allow this one for the container (docker: --device)" \
		in_podman --volume /dev/tlock-psu:/dev/tlock-psu </dev/null
	group=4242 try says_who_may fails "dialout" \
		in_podman --device /dev/tlock-psu </dev/null
	stale
}

load_with() {
	echo "options tlock names=$1" >/etc/modprobe.d/tlock.conf
	modprobe tlock
	udevadm settle
}

# The module is loaded again, with the locks in another order, while a container
# goes on
stale() {
	local run=(podman exec --interactive stale /usr/bin/python3 -c "$agent")

	in_podman --device /dev/tlock-psu --detach --name stale - sleep 1000
	try fresh prints taken "${run[@]}" </dev/null
	rmmod tlock
	try says_unloaded fails "the tlock module is not loaded" "${run[@]}" </dev/null
	load_with lakeshore,psu
	try says_stale fails "the device file leads to another lock, tlock-lakeshore" \
		"${run[@]}" </dev/null
	tlock delete lakeshore
	try says_stale_number fails "the device file is stale: it leads to device" \
		"${run[@]}" </dev/null
	podman rm --force --time 0 stale
	try works_again prints taken \
		in_podman --device /dev/tlock-psu </dev/null
}

begin "$@"

### On the host

# make_image: a root directory with Python and the wheel, as a container's is made
make_image() {
	local root=$root.image

	# shellcheck disable=SC2016 # the inner shell expands it
	make_root &&
		cp "$packages"/*.whl "$root/srv" &&
		there sh -c 'apt-get --no-install-recommends install python3-pip &&
			pip install --no-index --root-user-action=ignore \
				$(pip install --help | grep -o -m 1 \
				-e "--break-system-packages") /srv/*.whl'
}

set_up() {
	make_image &&
		install_packages &&
		there apt-get --no-install-recommends install podman dbus &&
		echo "options tlock names=psu,lakeshore" \
			>"$root/etc/modprobe.d/tlock.conf" &&
		mv "$root.image" "$root/srv/image" &&
		make_disk
}

try packages_are_built build_packages
try machine_is_set_up set_up
((failed)) || boot "$image" at_boot
echo "1..$number"
exit $failed
