#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# TLOCK_SUITE=SUITE [TLOCK_SECTION=HEADING] selftests/meta/bare.sh: run the
# commands of a section of README.md, exactly as written there, on a bare Debian
# SUITE. Prints KTAP.
#
# The default section is "Install it without packages". It runs without a network.
# The effects of its commands are checked, and what "make uninstall" leaves behind.
#
# The commands run in a copy of scripts/kernel's system bare-SUITE. There, uname
# reports that system's kernel, as it would after booting it. Commands that deal
# with the running kernel run in a virtual machine that has booted it.

set -uo pipefail

here=$(dirname "$(readlink -f "$0")")
tree=$(dirname "$(dirname "$here")")
. "$tree/scripts/options"
. "$tree/scripts/try"
case ${1:-} in
-*) operands 0 0 "$@" ;;
esac
version=$(<"$tree/VERSION")
number=${TLOCK_NUMBER:-0}
failed=0

### In the virtual machine: "bare.sh COMMAND..." runs these

# A user without privileges, and one who may open serial ports
nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups)
operator=(setpriv --reuid 65534 --regid 65534 --groups dialout)

loaded() {
	[[ -c /dev/tlock && $(</sys/module/tlock/version) == "$version" ]]
}

# Test the access that udev's rule grants
granted() {
	udevadm settle
	try device_is_dialouts is "664 root dialout" stat -c '%a %U %G' /dev/tlock
	try operator_takes_it "${operator[@]}" tlock run -w 0 true
	try nobody_looks "${nobody[@]}" tlock status
	try nobody_takes_it not "${nobody[@]}" tlock run -w 0 true
}

refused_as_written() {
	local printed

	printed=$(modprobe tlock 2>&1) && return 1
	echo "$printed"
	grep -qF "\`$printed\`" "$tree/README.md"
}

in_guest() {
	export PATH=$PATH:/usr/local/bin
	cd /srv/tree || exit
	/lib/systemd/systemd-udevd --daemon 2>/dev/null || exit
	for command; do
		try "$command" bash -c "$command"
		case $command in
		"modprobe tlock")
			try loaded loaded
			try modinfo_version is "$version" modinfo -F version tlock
			try modinfo_author [ "$(modinfo -F author tlock)" ]
			granted
			try python_finds_it /usr/bin/python3 -c \
				'import tlock; print(tlock.TimeoutLock())'
			;;
		"insmod "*)
			try loaded loaded
			# Nothing is installed any more
			try operator_is_refused not \
				"${operator[@]}" sh -c ': >/dev/tlock'
			try install_rules make install-rules
			udevadm settle
			try device_is_dialouts is "664 root dialout" \
				stat -c '%a %U %G' /dev/tlock
			rmmod tlock
			;;
		"rmmod tlock")
			try unloaded [ ! -e /dev/tlock ]
			try loads_at_boot /lib/systemd/systemd-modules-load
			try loaded loaded
			granted
			rmmod tlock
			# As Secure Boot does, which this machine lacks
			echo 1 >/sys/module/module/parameters/sig_enforce
			try refused_as_written refused_as_written
			;;
		esac
	done
	udevadm control --exit
	exit $failed
}

if (($#)); then
	in_guest "$@"
fi

### On the host

suite=${TLOCK_SUITE:-}
[[ $suite ]] || usage "set TLOCK_SUITE to a Debian release"
image=$("$tree/scripts/kernel" "bare-$suite") || exit
release=${image##*/vmlinuz-}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tlock
section=${TLOCK_SECTION:-Install it without packages}
alone=(unshare --net)
[[ $section == "Install it "* ]] || alone=()
root=$tree/build/${section%%[ ,]*}/bare-$suite

# The commands of README.md's section, in order
commands() {
	sed -n "/^## $section\$/,/^## /s/^    //p" "$tree/README.md"
}

# Make a bare system with a copy of this tree. All our files are in /srv.
prepare() {
	rm -rf "$root" &&
		mkdir -p "${root%/*}" &&
		cp -a --reflink=auto "${image%/boot/*}" "$root" &&
		mkdir -p "$root/srv/bin" "$root/srv/tree" &&
		cd "$tree" &&
		tar -c --exclude=./build --exclude=./.git --exclude=__pycache__ \
			--exclude='*.o' --exclude='*.ko' --exclude='*.mod*' \
			--exclude='.*.cmd' . | tar -x -C "$root/srv/tree" &&
		cat >"$root/srv/bin/uname" <<-END &&
			#!/bin/sh
			[ "\$*" = -r ] && echo $release || exec /usr/bin/uname "\$@"
		END
		chmod 755 "$root/srv/bin/uname" &&
		echo 'APT::Get::Assume-Yes "true";' \
			>"$root/etc/apt/apt.conf.d/yes" &&
		echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/fast"
}

# there COMMAND: run it in that system, with its own PATH, and so that nothing
# can load a module into the kernel that runs here
there() {
	"${alone[@]}" "$tree/scripts/inside" "$root" \
		setpriv --bounding-set=-sys_module \
		env XDG_CACHE_HOME=/srv/cache PATH=/srv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		DEBIAN_FRONTEND=noninteractive \
		bash -c "cd /srv/tree && $1"
}

# List each file of the system: its attributes, and a digest of its contents
snapshot() {
	(cd "$root" &&
		find . \( -path ./srv -o -path ".$tree" -o -path ".$cache" \) \
			-prune -o -printf '%p %y %M %U:%G %l\n' \
			-type f -exec sha256sum '{}' + | sort)
}

# Ignores the key that dkms made for all modules, and ldconfig's cache
nothing_left() {
	snapshot >"$root.after"
	diff "$root.before" "$root.after" |
		grep '^[<>]' | grep -vE ' \./var/(lib/dkms/mok\.(key|pub)|cache/ldconfig/aux-cache)\>' \
			>"$root.left"
	cat "$root.left"
	[[ -s $root.before && ! -s $root.left ]]
}

no_name_left() {
	(cd "$root" && is "" find . \( -path ./srv -o -path ".$tree" \
		-o -path ".$cache" \) -prune -o -name '*tlock*' \
		! -name '__fsetlocking*' -print)
}

# What dkms does when a kernel has been installed
next_kernel() {
	there "dkms uninstall tlock/$version -k $release &&
		! modinfo -k $release tlock &&
		/etc/kernel/postinst.d/dkms $release &&
		modinfo -k $release tlock"
}

# look_at COMMAND: check what a command has done
look_at() {
	case $1 in
	"apt-get "*)
		[[ -s $root.before ]] || {
			try later_headers_come there \
				"dpkg-query -W linux-headers-amd64"
			snapshot >"$root.before"
		}
		;;
	"make install")
		try next_kernel next_kernel
		try signed is "DKMS module signing key" \
			there "modinfo -k $release -F signer tlock"
		try key_to_enroll there "openssl x509 -inform der -noout \
			-in /var/lib/dkms/mok.pub"
		# As root, so that Python leaves compiled files behind
		try python_finds_it there "cd / && python3 -c 'import tlock'"
		try library_found there "ldconfig -p | grep -q libtlock.so.1"
		;;
	"make uninstall")
		try nothing_left nothing_left
		try no_name_left no_name_left
		try not_in_linker_cache there \
			"! ldconfig -p | grep libtlock"
		;;
	esac
}

# The commands for the running kernel so far; flush runs them in the guest
guest=()
flush() {
	local line

	((${#guest[@]})) || return
	while IFS= read -r line; do
		echo "$line"
		[[ ! $line =~ ^(not )?ok ]] || number=$((number + 1))
		[[ $line != "not ok "* ]] || failed=1
	done < <(cd "$tree" && TLOCK_NUMBER=$number scripts/vm --no-build \
		--kernel "$root/boot/${image##*/}" -- \
		selftests/meta/bare.sh "${guest[@]}" 2>&1 || echo "not ok 0 guest")
	guest=()
}

trap 'rm -rf "$root"' EXIT
echo "TAP version 13"
rm -f "$root".{before,after,left}
try prepare prepare
try commands_found [ "$(commands)" ]
while IFS= read -r command; do
	case $command in
	modprobe* | insmod* | rmmod*)
		guest+=("$command")
		continue
		;;
	esac
	flush
	try "$command" there "$command"
	look_at "$command"
done < <(commands)
flush
[[ $section != "Install it "* ]] || try uninstall_was_tried [ -e "$root.left" ]
echo "1..$number"
exit $failed
