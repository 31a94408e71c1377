#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# TLOCK_SUITE=SUITE selftests/install/dkms.sh: what DKMS does with the package's
# module for this release's kernel, for kernels that are not supported, and for
# one that clang has built. Prints KTAP. Boots nothing.

tree=$(readlink -f "$(dirname "$0")/../..")
# shellcheck source=selftests/install/machine
. "$tree/selftests/install/machine"

begin "$@"

modinfo_says() {
	is "$2" there modinfo -k "$release" -F "$1" tlock
}

# refused KERNEL ARCH: DKMS refuses to build for it, and says why
refused() {
	local printed

	mkdir -p "$root/srv/headers" "$root/lib/modules/$1/build"
	printed=$(there dkms build "tlock/$version" -k "$1" -a "$2" \
		--kernelsourcedir /srv/headers 2>&1) && return 1
	echo "$printed"
	[[ $printed == *BUILD_EXCLUSIVE* ]] &&
		# The next administrator looks there for the reason
		there grep -q "Linux 5.10 and later, 64 bits" \
			"/usr/src/tlock-$version/dkms.conf"
}

# not_in_the_way KERNEL: such a kernel can be installed all the same
not_in_the_way() {
	local printed

	printed=$(there env PATH="/srv/bin:$PATH" \
		/etc/kernel/postinst.d/dkms "$1" 2>&1)
	local status=$?

	echo "$printed"
	((status == 0)) && not there modinfo -k "$1" tlock
}

# A kernel's tree that clang has configured, as its headers package would be
clang_tree() {
	local archive

	"$tree/scripts/setup" clang lld llvm flex bison bc libelf-dev libssl-dev
	archive=$("$tree/scripts/linux-source" archive) &&
		rm -rf "$root.clang" &&
		mkdir -p "$root.clang" &&
		tar -x --strip-components=1 -C "$root.clang" -f "$archive" &&
		make -s -C "$root.clang" LLVM=1 defconfig modules_prepare
}

# There are no symbols of a kernel to check against
built_by_clang() {
	"$tree/scripts/copy" "$root.module" &&
		make -C "$root.module" KDIR="$root.clang" KBUILD_MODPOST_WARN=1 &&
		readelf -p .comment "$root.module/tlock.ko" | grep clang &&
		not grep GCC <(readelf -p .comment "$root.module/tlock.ko")
}

try packages_are_built build_packages
try packages_are_installed install_packages
try built_for_this_kernel modinfo_says version "$version"
try signed modinfo_says signer "DKMS module signing key"
try older_kernel_is_refused refused 5.4.0-1-amd64 x86_64
try oldest_kernel_is_refused refused 4.19.0-1-amd64 x86_64
try other_architecture_is_refused refused "$release" i686
try apt_goes_on not_in_the_way 5.4.0-1-amd64
try clang_configures_a_kernel clang_tree
mkdir -p "$root.module"
try built_by_clang built_by_clang
echo "1..$number"
exit $failed
