#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# TLOCK_SUITE=SUITE selftests/install/secureboot.sh: install tlock on a machine
# with Secure Boot: UEFI firmware with Microsoft's keys starts Debian's shim, GRUB
# and kernel. The kernel refuses the module, everything says why, and once DKMS's
# key is enrolled as they say, the kernel loads it, and still no other. Prints
# KTAP.

tree=$(readlink -f "$(dirname "$0")/../..")
# shellcheck source=selftests/install/machine
. "$tree/selftests/install/machine"

### On the machine

password=tlock-secure-boot
advice="mokutil --import /var/lib/dkms/mok.pub"
# What DKMS calls the key that it makes
dkms_key="DKMS module signing key"

secure_boot() {
	try secure_boot_is_on prints "SecureBoot enabled" mokutil --sb-state
	try kernel_is_locked_down prints "[integrity]" \
		cat /sys/kernel/security/lockdown
}

# kernel_refuses FILE WHY: the kernel does not load it, and logs why
kernel_refuses() {
	dmesg --clear
	fails "Key was rejected by service" insmod "$1" &&
		[[ ! -e /sys/module/tlock ]] &&
		prints "$2" dmesg
}

# Each of our messages leads to the key
all_say_why() {
	try modprobe_is_refused fails \
		"could not insert 'tlock': Key was rejected by service" \
		modprobe tlock
	try status_says_why fails "$advice" tlock status
	try run_says_why fails "$advice" tlock run true
	try python_says_why fails "$advice" /usr/bin/python3 -c \
		'from tlock import TimeoutLock; TimeoutLock()'
}

at_refused() {
	secure_boot
	try make_install_says_why prints "$advice" make install
	try its_module_is_refused fails "Key was rejected by service" \
		modprobe tlock
	try make_uninstall make uninstall
	printed=$(apt install /srv/packages/tlock-dkms_*.deb 2>&1)
	# shellcheck disable=SC2016 # dpkg-query's
	try package_is_installed is "install ok installed" \
		dpkg-query -W -f '${Status}' tlock-dkms
	try package_says_why grep -q "^tlock-dkms: .*$advice" <<<"$printed"
	try dkms_has_signed_it is "$dkms_key" modinfo -F signer tlock
	all_say_why
	try key_is_imported import_key
}

# As the package says. mokutil asks twice
import_key() {
	printf '%s\n' "$password" "$password" |
		mokutil --import /var/lib/dkms/mok.pub
}

at_enrolled() {
	secure_boot
	# It exits with 1
	try key_is_enrolled [ "$(mokutil --test-key /var/lib/dkms/mok.pub)" = \
		"/var/lib/dkms/mok.pub is already enrolled" ]
	try loaded_at_boot loaded
	try lock_is_taken tlock run -w 0 true
	# The kernel has verified it, but notes that it comes from elsewhere
	try taints_as_out_of_tree is $((1 << 12)) cat /proc/sys/kernel/tainted
	try unloaded rmmod tlock
	others
	try loaded_again modprobe tlock
}

# Whatever else claims to be the module stays out
others() {
	local dir=/srv/others

	mkdir -p "$dir"
	xz -dcf "$(modinfo -n tlock)" >"$dir"/tlock.ko
	openssl req -new -x509 -nodes -days 36500 -subj "/CN=another key" \
		-newkey rsa:2048 -keyout "$dir"/key -outform DER -out "$dir"/cert \
		2>/dev/null
	objcopy --strip-debug "$dir"/tlock.ko "$dir"/unsigned.ko
	cp "$dir"/unsigned.ko "$dir"/another.ko
	"/lib/modules/$(uname -r)/build/scripts/sign-file" sha256 \
		"$dir"/key "$dir"/cert "$dir"/another.ko
	try signed_with_another is "another key" modinfo -F signer "$dir"/another.ko
	try another_is_refused kernel_refuses "$dir"/another.ko \
		"unavailable key"
	try unsigned_is_refused kernel_refuses "$dir"/unsigned.ko "unsigned module"
}

begin "$@"

### On the host

# The machine has all but the package of the module: it is emulated, and slow
make_machine() {
	make_root &&
		cp -r "$packages" "$root/srv/packages" &&
		there sh -c "apt-get install --no-install-recommends dkms gcc openssl \
			linux-headers-amd64 make libc6-dev libsmartcols-dev \
			python3 mokutil shim-signed grub-efi-amd64-signed \
			/srv/packages/tlock_*.deb \
			/srv/packages/libtlock1_*.deb \
			/srv/packages/python3-tlock_*.deb" &&
		make_disk
}

try packages_are_built build_packages
try machine_is_made make_machine
trap 'rm -rf "$root" "$root.vars" "$packages" "$disk"' EXIT
if ((failed == 0)); then
	append=(--efi "$root.vars")
	boot "$root/boot/vmlinuz-$release" at_refused
	append+=(--enroll "$password")
	boot "$root/boot/vmlinuz-$release" at_enrolled
fi
echo "1..$number"
exit $failed
