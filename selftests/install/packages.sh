#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# TLOCK_SUITE=SUITE selftests/install/packages.sh: build the Debian packages of
# the version before and of this one; on a machine, install the first, upgrade
# to the second while a lock is held, upgrade the kernel, and remove and purge
# them. Prints KTAP.

tree=$(readlink -f "$(dirname "$0")/../..")
# shellcheck source=selftests/install/machine
. "$tree/selftests/install/machine"

### On the machine

names=(tlock tlock-dkms libtlock1 libtlock-dev python3-tlock)
operator=(setpriv --reuid 65534 --regid 65534 --groups dialout)
nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups)

# without_newer_kernel: apt prefers the kernel that is installed
without_newer_kernel() {
	# shellcheck disable=SC2016 # dpkg-query's
	cat >/etc/apt/preferences.d/kernel <<-END
		Package: linux-image-amd64 linux-headers-amd64
		Pin: version $(dpkg-query -W -f '${Version}' linux-image-amd64)
		Pin-Priority: 1001
	END
}

# list: each file of the system: its attributes, and a digest of its contents.
# Leaves out what changes by itself.
list() {
	find / -xdev \( -path /srv -o -path "$tree" -o -path /tmp \
		-o -path /etc/apt/preferences.d -o -path /etc/modprobe.d \
		-o -path '/var/lib/systemd' -o -path /var/log -o -path /var/cache \
		-o -path /var/tmp -o -name __pycache__ \) -prune -o \
		-printf '%p %y %M %U:%G %l\n' \
		-type f -exec sha256sum '{}' + | sort
}

usable() {
	udevadm settle
	try loaded loaded "$@"
	try device_is_dialouts is "664 root dialout" stat -c '%a %U %G' /dev/tlock
	try operator_takes_it "${operator[@]}" tlock run -w 0 true
	try nobody_looks "${nobody[@]}" tlock status
	try nobody_takes_it not "${nobody[@]}" tlock run -w 0 true
	try cron_finds_it env -i PATH=/usr/bin:/bin tlock run -w 0 true
	try python_takes_it "${operator[@]}" /usr/bin/python3 -c \
		'from tlock import TimeoutLock
with TimeoutLock().acquire_timeout(timeout=3, job="test") as acquired:
    assert acquired'
}

# is_version VERSION: each part of the installed packages says it is this one
is_version() {
	local package

	for package in "${names[@]}"; do
		# shellcheck disable=SC2016 # dpkg-query's
		is "$1" dpkg-query -W -f '${Version}' "$package" || return
	done
	is "tlock $1" tlock --version &&
		is "$1" modinfo -F version tlock &&
		is "$1" /usr/bin/python3 -c 'import tlock; print(tlock.__version__)' &&
		is "libtlock.so.1.$1" readlink /usr/lib/*/libtlock.so.1
}

monitor=tlock-monitor.service

# monitor_is_new: it runs the program that is installed now
monitor_is_new() {
	is /usr/bin/tlock \
		readlink "/proc/$(systemctl show -P MainPID "$monitor")/exe"
}

at_first_boot() {
	before=$(</srv/packages/before/VERSION)
	without_newer_kernel
	# What the packages and their tests need comes first, so that they alone
	# are removed
	try needs_come apt install dkms linux-headers-amd64 libcurl4 \
		libjansson4 libsmartcols1 python3
	try tools_come apt --no-install-recommends install autopkgtest pkgconf
	list >/srv/list
	echo "options tlock names=psu" >/etc/modprobe.d/tlock.conf
	try packages_come apt install /srv/packages/before/*.deb
	try versions_agree is_version "$before"
	usable "$before"
	try log_is_kept systemctl enable --now "$monitor"

	tlock run -d psu --job old sleep 1000 &
	holder=$!
	until_ok prints old tlock status psu
	printed=$(apt install /srv/packages/*.deb 2>&1)
	try upgraded is_version "$version"
	try daemon_comes is "tlockd $version" tlockd --version
	try daemon_waits_for_its_configuration not systemctl is-active tlockd
	try stays_loaded loaded "$before"
	try says_so is "tlock-dkms: version $before of the module stays loaded until the next boot; to load $version before that, stop what uses the locks, tlock-monitor.service and tlockd.service, run 'rmmod tlock && modprobe tlock', and create again what 'tlock create' made" \
		grep ^tlock-dkms <<<"$printed"
	try monitor_is_new monitor_is_new
	try still_held prints "old $holder" tlock status --raw -o JOB,PID psu
	kill "$holder"
	systemctl stop "$monitor"
	try unloads until_ok rmmod tlock
	try loads modprobe tlock
	usable
	try lock_is_there test -c /dev/tlock-psu
	try autopkgtest as_debian_tests
	# Again, to see that nothing is done twice
	try installed_again apt install --reinstall /srv/packages/*.deb
	try still_loaded loaded
}

# as_debian_tests: the packages' own test, run as Debian does. This machine is
# as isolated as the test asks, which autopkgtest does not know.
as_debian_tests() {
	autopkgtest --ignore-restrictions=isolation-machine /srv/packages/*.deb \
		/srv/tree -- null
}

built_for_both_kernels() {
	is .. find /usr/lib/modules -name 'tlock.ko*' -printf .
}

at_second_boot() {
	usable
	try log_goes_on is active systemctl is-active "$monitor"
	try lock_is_there test -c /dev/tlock-psu
	rm /etc/apt/preferences.d/kernel
	try kernel_is_upgraded apt upgrade --with-new-pkgs
	try built_for_both_kernels built_for_both_kernels
}

says_who_is_in_the_way() {
	echo "$printed"
	grep -q "^  $holder tlock run -d psu sleep 1000 \$" <<<"$printed"
}

at_new_kernel() {
	try is_newer not is "$(cat /srv/release)" uname -r
	usable
	try lock_is_there test -c /dev/tlock-psu
	tlock run -d psu sleep 1000 &
	holder=$!
	until_ok prints held tlock status psu
	printed=$(apt remove tlock-dkms 2>&1)
	try says_who_is_in_the_way says_who_is_in_the_way
	try stays_loaded loaded
	try log_goes_on is active systemctl is-active "$monitor"
	kill "$holder"
	systemctl stop "$monitor"
	try unloads until_ok rmmod tlock
	try comes_back apt install /srv/packages/tlock-dkms_*.deb
	try loaded loaded
	try log_begins systemctl start "$monitor"
	try removed apt remove "${names[@]}" tlockd
	try unloaded not test -e /sys/module/tlock
	# apt no longer knows the others, which leave nothing to purge
	try purged apt purge tlock tlockd
	try nothing_is_left nothing_is_left
	try no_name_is_left is "" find / -xdev \( -path /srv -o -path "$tree" \
		-o -path /var/log -o -path /etc/modprobe.d \) -prune -o \
		-name '*tlock*' ! -name '__fsetlocking*' -print
}

# The kernel's own files, and what dpkg and dkms keep for all packages
nothing_is_left() {
	list >/srv/list.after
	[[ -s /srv/list ]] || return
	not grep '^[<>]' <(diff /srv/list /srv/list.after |
		grep -vE ' (/usr)?/(lib/(modules|linux-)|src/linux-|boot/|vmlinuz|initrd|share/(doc|bug|lintian/overrides)/linux-|var/lib/(dpkg|apt)/|var/lib/(dkms/mok\.(key|pub)|dkms)\b)')
}

begin "$@"

### On the host

# Debian 12's also wants a script for sysvinit
lintian_accepts_them() {
	there apt-get install --no-install-recommends lintian &&
		is "" there sh -c "lintian --allow-root \
			/srv/tree/build/packages/*.changes |
			grep -v no-init.d-script || :"
}

# A version that had no packages yet gets today's rules to make them
build_before() {
	local old=$root/srv/before

	"$here/older" before "$old" || return
	[[ -e $old/debian ]] || {
		cp -r "$tree"/{debian,Makefile,dkms.conf} "$old" &&
			cp "$tree"/scripts/{package,copy} "$old/scripts" &&
			cp -r "$tree"/userlib/{systemd,containers} "$old/userlib" &&
			sed -i "1s/(.*)/($(<"$old/VERSION"))/" "$old/debian/changelog" &&
			sed -i '/^Package: tlockd$/,$d' "$old/debian/control" &&
			rm "$old"/debian/tlockd.*
	} || return
	there /srv/before/scripts/package &&
		mkdir "$packages/before" &&
		cp "$old"/build/packages/*.deb "$old/VERSION" "$packages/before"
}

# The machine has the kernel that its release came with
make_machine() {
	make_root &&
		there sh -c "apt-get install --allow-downgrades \
			linux-image-amd64/$suite &&
			INITRD=No apt-get purge linux-image-$release" &&
		cp -r "$packages" "$root/srv/packages" &&
		basename "$root"/boot/vmlinuz-* | cut -d - -f 2- \
			>"$root/srv/release" &&
		make_disk
}

try packages_are_built build_packages
try lintian_accepts_them lintian_accepts_them
try packages_before_are_built build_before
try machine_is_made make_machine
older=$(echo "$root"/boot/vmlinuz-*)
try kernel_is_older [ "$(basename "$older")" != "$(basename "$image")" ]
if ((failed == 0)); then
	boot "$older" at_first_boot
	boot "$older" at_second_boot
	boot "$image" at_new_kernel
fi
echo "1..$number"
exit $failed
