#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# selftests/install/rpm.sh: build the RPM packages, and test what can be tested
# on Debian: they have what the Debian packages have, and that works; akmods can
# build the module from them; their scripts do what they should. Prints KTAP.
# Needs no module: the scripts run in a directory of their own, as root.

set -uo pipefail

here=$(dirname "$(readlink -f "$0")")
tree=$(readlink -f "$here/../..")
. "$tree/scripts/options"
. "$tree/scripts/try"
operands 0 0 "$@"
cd "$tree" || exit 1
# Python's and rpm's are the system's
export PATH=/usr/sbin:/usr/bin:/sbin:/bin

scripts/setup rpm rpmlint cpio make gcc libc6-dev libsmartcols-dev \
	libcurl4-openssl-dev libjansson-dev libsystemd-dev pkg-config python3 kmod \
	busybox-static shellcheck || exit
image=$(scripts/kernel) || exit
release=${image##*/vmlinuz-}
headers=${image%/boot/*}/lib/modules/$release/build

version=$(<VERSION)
arch=$(uname -m)
rpms=$tree/build/rpms
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# built PACKAGE: the path of a package that was built
built() {
	find "$rpms" -name "$1-$version-1.*.rpm" ! -name '*.src.rpm'
}

# query PACKAGE OPTION...: of such a package
query() {
	rpm --dbpath "$work/db" -qp "${@:2}" "$(built "$1")"
}

### Packages

packages=(akmod-tlock libtlock libtlock-devel python3-tlock tlock
	tlock-kmod-common tlockd)
kmod=kmod-tlock-$release

# rebuild DIR OPTION...: build the module as akmods does, from the source
# package in akmod-tlock, into a directory. akmods's kernels are in the usual
# place, and rpm knows what is installed there.
rebuild() {
	mkdir -p "$1" &&
		rpmbuild --define "_topdir $1" --define "_dbpath $work/db" \
			--target "$arch" "${@:2}" \
			--rebuild "$work/unpacked/usr/src/akmods/tlock-kmod.latest"
}

unpack() {
	local package

	mkdir "$work/unpacked" || return
	for package in "${packages[@]}"; do
		rpm2cpio "$(built "$package")" |
			cpio -idm --quiet -D "$work/unpacked" || return
	done
}

builds_module() {
	rebuild "$work/akmods" --nodeps --define "kernels $release" \
		--define "kdir $headers" &&
		mv "$work"/akmods/RPMS/*/*.rpm "$rpms"
}

# As with the macros that akmods brings, which sign what is not compressed yet
signs_module() {
	local module="%{buildroot}/usr/lib/modules/$release/extra/tlock/tlock.ko"

	rebuild "$work/signed" --nodeps --define "kernels $release" \
		--define "kdir $headers" --define "__kmodtool_signmodules 1" \
		--define "__kmodtool_modsign_install_post \
			echo signature >>$module" &&
		rpm2cpio "$work"/signed/RPMS/*/*.rpm |
		cpio -i --quiet --to-stdout '*/tlock.ko' | tail -c 10 |
			grep -qx signature
}

# rpm knows of no packages here, so it names all that it misses
missing() {
	rebuild "$work/missing" --define "kernels 6.12.0-1.x86_64" 2>&1 |
		sed -n 's/^\t\(.*\) is needed by .*/\1/p' | sort
}

# A host that builds only the module needs nothing of the userland
needs_for_module() {
	is "elfutils-libelf-devel
gcc
kernel-devel-uname-r = 6.12.0-1.x86_64
make" missing
}

module_fits() {
	local module=usr/lib/modules/$release/extra/tlock/tlock.ko

	rpm2cpio "$(built "$kmod")" | cpio -idm --quiet -D "$work/unpacked" &&
		is "$version" modinfo -F version "$work/unpacked/$module" &&
		[[ $(modinfo -F vermagic "$work/unpacked/$module") == "$release "* ]] &&
		is "/$module" files "$kmod"
}

versions_agree() {
	local package

	for package in "${packages[@]}" "$kmod"; do
		is "$version" query "$package" --qf '%{VERSION}' || return
	done
}

lint() {
	rpmlint --config "$1" tlock.spec "$rpms"/*.rpm
}

rpmlint_accepts() {
	# With a source package and that of the module
	local checked="$((${#packages[@]} + 2)) packages and 1 specfiles checked"

	lint "$here/rpmlint.toml" | tee "$work/lint" | tail -n 1 |
		grep -F "$checked; 0 errors, 0 warnings" || {
		cat "$work/lint"
		return 1
	}
}

# Each filter still is for something
rpmlint_filters() {
	local filter unused=0

	sed '/^Filters = /,/^\]/d' "$here/rpmlint.toml" >"$work/rpmlint.toml"
	lint "$work/rpmlint.toml" >"$work/lint"
	while IFS= read -r filter; do
		grep -qE -e "$filter" "$work/lint" || {
			echo "nothing to filter: $filter"
			unused=1
		}
	done < <(sed -n '/^Filters/,$s/^\t"\(.*\)",$/\1/p' "$here/rpmlint.toml")
	return "$unused"
}

# lint_try NAME: as in scripts/check-source, only Debian 12's rpmlint counts
lint_try() {
	if grep -qx VERSION_CODENAME=bookworm /etc/os-release; then
		try "$1" "$1"
	else
		number=$((number + 1))
		echo "ok $number $1 # SKIP only Debian 12's rpmlint counts"
	fi
}

### Their files

# files PACKAGE: besides directories, licenses and documentation, which the
# packages keep in other places than Debian's. Manual pages are compressed.
files() {
	query "$1" --qf '[%{FILEMODES:perms} %{FILENAMES}\n]' |
		sed -nE '/^d/d; s|^[^ ]* ||; /^.usr.share.(doc|licenses)./d
			s|^(/usr/share/man/.*)\.gz$|\1|; p' | sort
}

# installed PATTERN...: what "make install" has put there, but for documentation
installed() {
	# shellcheck disable=SC2048,SC2086 # patterns
	(cd "$work/installed" && find ${*#/} ! -type d \
		! -path 'usr/share/doc/*' -printf '/%p\n' | sort)
}

pythondir() {
	python3 -c 'import sysconfig
print(sysconfig.get_path("purelib", "posix_prefix", {"base": "/usr"}))'
}
pythondir=$(pythondir)

make_install() {
	local dirs=(DESTDIR="$work/installed" PREFIX=/usr)

	make -s -C userlib install OUTPUT="$work/build" LIBDIR=/usr/lib64 \
		PYTHONDIR="$pythondir" "${dirs[@]}" &&
		make -s install-rules "${dirs[@]}"
}

# has_files PACKAGE DEBIAN-PACKAGE: it has what debian/ says that the other has.
# The module's source is in neither.
has_files() {
	local patterns

	patterns=$(sed 's|^usr/lib/\*/|usr/lib64/|; /^usr\/src/d' \
		"debian/$2.install") &&
		[[ $patterns ]] &&
		diff <(installed "$patterns") <(files "$1")
}

has_python_files() {
	local info=$pythondir/tlock-$version.dist-info

	diff <(printf '%s\n' "$info"/{INSTALLER,METADATA} &&
		installed "$pythondir") <(files python3-tlock)
}

has_source() {
	is "/usr/src/akmods/tlock-$version-1.src.rpm
/usr/src/akmods/tlock-kmod.latest" files akmod-tlock
}

# No file that "make install" has is missing
has_all() {
	diff <(installed usr) \
		<(for package in "${packages[@]}"; do files "$package"; done |
			grep -vE '^/usr/src|dist-info' | sort)
}

have_licenses() {
	local package

	for package in "${packages[@]}" "$kmod"; do
		[[ $(query "$package" --licensefiles) == */COPYING* ]] || {
			echo "$package"
			return 1
		}
	done
}

### What they have works

python_imports() {
	is "$version $version $work/unpacked$pythondir/tlock/__init__.py" \
		env PYTHONPATH="$work/unpacked$pythondir" /usr/bin/python3 -c \
		'import importlib.metadata, tlock
print(tlock.__version__, importlib.metadata.version("tlock"), tlock.__file__)'
}

# links OPTION...: a program can be built, and says that there is no such lock
links() {
	local lib=$work/unpacked/usr/lib64
	export PKG_CONFIG_PATH=$lib/pkgconfig LD_LIBRARY_PATH=$lib
	export PKG_CONFIG_SYSROOT_DIR=$work/unpacked

	# shellcheck disable=SC2046 # words
	printf '%s\n' '#include <stdio.h>' '#include <tlock.h>' \
		'int main(void)' '{' '	if (!tlock_open("nosuchlock", O_RDWR))' \
		'		perror("open");' '}' |
		cc -Wall -Werror -o "$work/program" -xc - -xnone "$@" \
			$(pkg-config --cflags --libs libtlock) &&
		is "open: No such file or directory" "$work/program"
}

### Their scripts

# make_root: a directory to install in. Commands there write down that they were
# called, and fail as the file of that name in /fail says.
make_root() {
	local name

	root=$work/root
	rm -rf "$root"
	mkdir -p "$root"/{usr/{bin,sbin,lib,lib64},fail,proc,run/{systemd/system,udev},sys/module,var/lib/rpm,dev} &&
		ln -s usr/bin "$root/bin" && ln -s usr/sbin "$root/sbin" &&
		ln -s usr/lib "$root/lib" &&
		ln -s usr/lib64 "$root/lib64" &&
		ldd /bin/sh | grep -o '/[^ ]*' |
		xargs cp --parents -L -t "$root" /bin/sh /usr/bin/nohup &&
		cp /bin/busybox "$root/bin/busybox" || return
	# busybox would be a shell that does not look for commands
	for name in cat grep tr rm; do
		ln -s busybox "$root/bin/$name" || return
	done
	for name in uname modprobe rmmod depmod dkms systemctl udevadm akmods; do
		cat >"$root/sbin/$name" <<-'END'
			#!/bin/sh
			echo "${0##*/} $*" >>/log
			case ${0##*/}:$1 in
			uname:*) cat /release ;;
			systemctl:stop) rm -f /fail/rmmod ;;
			esac
			[ ! -e "/fail/${0##*/}" ] || { cat "/fail/${0##*/}"; exit 1; }
		END
		chmod +x "$root/sbin/$name" || return
	done
	echo "$release" >"$root/release" && : >"$root/log" &&
		: >"$root/dev/null" && chmod 666 "$root/dev/null" && list >"$work/before"
}

# list: what is there, without rpm's own
list() {
	find "$root" \( -path "$root/var" -o -path "$root/log" \) -prune \
		-o ! -type d -print -o -name '*tlock*' -print | sort
}

# Debian's rpm otherwise says that one should use apt
put() {
	rpm --force-debian --root "$root" --dbpath /var/lib/rpm --nodeps -U \
		"${@:2}" "$(built "$1")" 2>&1
}

remove() {
	rpm --force-debian --root "$root" --dbpath /var/lib/rpm --nodeps -e \
		"$@" 2>&1
}

# called LINE: whether a script ran this command
called() {
	grep -qx -e "$1" "$root/log" || {
		cat "$root/log"
		return 1
	}
}

all_come_and_go() {
	local package

	make_root || return
	for package in "${packages[@]}" "$kmod"; do
		is "" put "$package" || return
	done
	diff <(cat "$work/before"
		for package in "${packages[@]}" "$kmod"; do
			query "$package" -l
		done | sed "s|^|$root|") <(list) |
		grep '^>' && return 1
	[[ -x $root/usr/bin/tlock &&
		-f $root/usr/lib/modules/$release/extra/tlock/tlock.ko ]] || return
	is "" remove "${packages[@]}" "$kmod" &&
		diff "$work/before" <(list)
}

loads() {
	make_root && is "" put "$kmod" &&
		called "depmod -a $release" && called "modprobe tlock"
}

# As in an image that is being built, or when a kernel was installed
does_not_load() {
	make_root && echo another >"$root/release" && is "" put "$kmod" &&
		not called "modprobe tlock" && called "depmod -a $release" &&
		make_root && rmdir "$root/run/systemd/system" && is "" put "$kmod" &&
		not called "modprobe tlock"
}

says_why_not() {
	make_root &&
		echo "modprobe: ERROR: Key was rejected by service" \
			>"$root/fail/modprobe" &&
		[[ $(put "$kmod") == *"Key was rejected"*"Secure Boot"* ]]
}

keeps_other_version() {
	make_root && mkdir "$root/sys/module/tlock" &&
		echo 0.1 >"$root/sys/module/tlock/version" &&
		[[ $(put "$kmod") == *"version 0.1 of the module stays loaded"* ]] &&
		not called "modprobe tlock"
}

unloads() {
	make_root && is "" put "$kmod" && mkdir "$root/sys/module/tlock" &&
		is "" remove "$kmod" &&
		not called "systemctl stop tlock-monitor.service tlockd.service" &&
		called "rmmod tlock" && is 2 grep -c depmod "$root/log"
}

# Only if they are in the way, they end
stops_our_services() {
	make_root && is "" put "$kmod" && mkdir "$root/sys/module/tlock" &&
		touch "$root/fail/rmmod" && is "" remove "$kmod" &&
		called "systemctl stop tlock-monitor.service tlockd.service" &&
		not called "systemctl start tlock-monitor.service tlockd.service" &&
		is 2 grep -c "rmmod tlock" "$root/log"
}

# And they go on if they were not the only ones; here, nobody else is seen
starts_our_services() {
	make_root && is "" put "$kmod" && mkdir "$root/sys/module/tlock" &&
		mkdir "$root/fail/rmmod" &&
		[[ $(remove "$kmod") == *"kmod-tlock: the module stays loaded: "* ]] &&
		called "systemctl start tlock-monitor.service tlockd.service"
}

upgrade_keeps_loaded() {
	make_root && is "" put "$kmod" && mkdir "$root/sys/module/tlock" &&
		echo "$version" >"$root/sys/module/tlock/version" &&
		is "" put "$kmod" --replacepkgs &&
		not called "rmmod tlock" &&
		is 1 grep -c "modprobe tlock" "$root/log"
}

says_who_is_in_the_way() {
	make_root && is "" put "$kmod" &&
		mkdir -p "$root"/{sys/module/tlock,proc/{4711,42}/fdinfo} &&
		touch "$root"/{fail/{rmmod,systemctl},proc/42/fdinfo/0} &&
		printf 'pos:\t0\ntlock-state:\theld\n' >"$root/proc/4711/fdinfo/5" &&
		printf 'agent\0--psu\0' >"$root/proc/4711/cmdline" &&
		is "kmod-tlock: the module stays loaded, because these processes still have a lock open:
  4711 agent --psu 
kmod-tlock: when they have ended, run 'rmmod tlock'" remove "$kmod"
}

takes_over() {
	make_root && mkdir -p "$root"/{usr/src/tlock-0.1,var/lib/dkms/tlock/0.1} &&
		touch "$root/usr/src/tlock-0.1/dkms.conf" &&
		[[ $(put tlock-kmod-common) == *"replaces tlock 0.1,"* ]] &&
		called "dkms remove tlock/0.1 --all" && [[ ! -e $root/usr/src/tlock-0.1 ]]
}

# A copy of the whole source is not what "make install" has put there
leaves_other_sources() {
	make_root && mkdir -p "$root/usr/src/tlock-git/scripts" &&
		touch "$root/usr/src/tlock-git/dkms.conf" &&
		is "" put tlock-kmod-common && [[ -e $root/usr/src/tlock-git/dkms.conf ]]
}

applies_rules() {
	make_root && python3 -c 'import socket, sys
socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$root/run/udev/control" &&
		is "" put tlock && called "udevadm control --reload" &&
		called "udevadm trigger --subsystem-match=tlock"
}

says_what_comes_first() {
	make_root && mkdir -p "$root/usr/local/bin" &&
		touch "$root/usr/local/bin/tlock" &&
		[[ $(put tlock) == *"/usr/local/bin/tlock, from 'make install', hides"* ]]
}

calls_akmods() {
	make_root && is "" put akmod-tlock || return
	for _ in {1..50}; do
		[[ ! -s $root/log ]] || break
		sleep 0.1
	done
	called "akmods --from-akmod-posttrans --akmod tlock"
}

shellcheck_scripts() {
	local package tag

	for package in "${packages[@]}" "$kmod"; do
		for tag in PREIN POSTIN PREUN POSTUN POSTTRANS; do
			query "$package" --qf "[%{$tag}]" >"$work/script"
			shellcheck -s sh "$work/script" || {
				echo "$package, $tag"
				return 1
			}
		done
	done
}

echo "TAP version 13"
echo "1..40"
try builds scripts/package-rpm
try unpack unpack
try builds_module builds_module
try module_fits module_fits
try signs_module signs_module
try needs_for_module needs_for_module
try versions_agree versions_agree
lint_try rpmlint_accepts
lint_try rpmlint_filters
try make_install make_install
try command_files has_files tlock tlock
try daemon_files has_files tlockd tlockd
try library_files has_files libtlock libtlock1
try development_files has_files libtlock-devel libtlock-dev
try boot_files has_files tlock-kmod-common tlock-dkms
try python_files has_python_files
try source_files has_source
try all_files has_all
try licenses have_licenses
try command_runs is "tlock $version" "$work/unpacked/usr/bin/tlock" --version
try daemon_runs is "tlockd $version" "$work/unpacked/usr/sbin/tlockd" --version
try python_imports python_imports
try links_shared links
try links_static links -static
try all_come_and_go all_come_and_go
try loads loads
try does_not_load does_not_load
try says_why_not says_why_not
try keeps_other_version keeps_other_version
try unloads unloads
try stops_our_services stops_our_services
try starts_our_services starts_our_services
try upgrade_keeps_loaded upgrade_keeps_loaded
try says_who_is_in_the_way says_who_is_in_the_way
try takes_over takes_over
try leaves_other_sources leaves_other_sources
try applies_rules applies_rules
try says_what_comes_first says_what_comes_first
try calls_akmods calls_akmods
try shellcheck_scripts shellcheck_scripts
exit $failed
