#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# TLOCK_SUITE=SUITE selftests/install/beside.sh: install the packages on a machine
# on which "make install" was run before, and the other way round: which of both is
# used, and who says so. Prints KTAP.

tree=$(readlink -f "$(dirname "$0")/../..")
# shellcheck source=selftests/install/machine
. "$tree/selftests/install/machine"

### On the machine

says_what_it_replaces() {
	echo "$printed"
	grep -qxF "tlock-dkms: replaces tlock $version, which 'make install' gave to DKMS" \
		<<<"$printed"
}

# says_what_wins: each part of "make install" that is used instead is named
says_what_wins() {
	local file

	echo "$printed"
	for file in /usr/local/bin/tlock /usr/local/lib/libtlock.so.1 \
		/usr/local/lib/udev/rules.d/60-tlock.rules \
		/usr/local/lib/python3*/dist-packages/tlock; do
		grep -qE "^(tlock|libtlock1|python3-tlock): $file, from 'make install', hides this package's file: run 'make uninstall' in the directory of its source" \
			<<<"$printed" || return
	done
}

says_nothing() {
	echo "$printed"
	not grep -e "make install" -e "make uninstall" <<<"$printed"
}

one_tree() {
	local trees

	trees=$(dkms status tlock) &&
		is "tlock/$version" sort -u <<<"$(cut -d , -f 1 <<<"$trees")"
}

at_boot() {
	try loaded loaded
	try ours_is_used is /usr/local/bin/tlock command -v tlock

	# Somebody's own copy of the source, which nobody else may remove
	mkdir -p /usr/src/tlock-git/scripts
	touch /usr/src/tlock-git/dkms.conf
	printed=$(apt install /srv/packages/*.deb 2>&1)
	try packages_come dpkg-query -W tlock-dkms
	try says_what_it_replaces says_what_it_replaces
	try says_what_wins says_what_wins
	try one_tree one_tree
	try module_is_the_packages dpkg -S "/usr/src/tlock-$version"
	try make_install_is_refused fails \
		"the module is a package's: remove that first" make install
	try nothing_was_lost is /usr/local/bin/tlock command -v tlock

	try make_uninstall make uninstall
	hash -r
	try own_copy_stays test -e /usr/src/tlock-git/dkms.conf
	try theirs_is_used is /usr/bin/tlock command -v tlock
	try python_is_theirs is /usr/lib/python3/dist-packages/tlock/__init__.py \
		/usr/bin/python3 -c 'import tlock; print(tlock.__file__)'
	try says_what_it_hides prints "hides a package's /usr/bin/tlock" \
		make -C userlib install
	try make_uninstall_of_userland make -C userlib uninstall
	try one_tree_still one_tree
	try module_is_there modinfo tlock
	try rules_are_theirs udevadm test /sys/class/tlock/tlock
	printed=$(apt install --reinstall /srv/packages/*.deb 2>&1)
	try says_nothing_any_more says_nothing
	rmmod tlock
	try loads modprobe tlock
	udevadm settle
	try device_is_dialouts is "664 root dialout" stat -c '%a %U %G' /dev/tlock
}

begin "$@"

### On the host

set_up() {
	make_root && fake_uname &&
		there sh -c "apt-get install make gcc libc6-dev dkms \\
			linux-headers-amd64 pahole openssl \\
			libsmartcols-dev python3 &&
			cd /srv/tree && PATH=/srv/bin:\$PATH make install" &&
		cp -r "$packages" "$root/srv/packages" &&
		make_disk
}

try packages_are_built build_packages
try machine_is_set_up set_up
((failed)) || boot "$image" at_boot
echo "1..$number"
exit $failed
