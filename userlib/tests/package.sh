#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# userlib/tests/package.sh: test what libtlock installs, and that programs can
# be built with it. Prints KTAP. Needs no module.

set -uo pipefail

userlib=$(dirname "$(readlink -f "$0")")/..
. "$userlib/../scripts/options"
. "$userlib/../scripts/try"
operands 0 0 "$@"
version=$(<"$userlib/../VERSION")
CC=${CC:-cc}
CXX=${CXX:-c++}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

root=$work/root
lib=$root/usr/lib/test
include=$root/usr/include
export PKG_CONFIG_PATH=$lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$root
export LD_LIBRARY_PATH=$lib

failed=0

# install_to DIR [MAKE-ARGUMENT...]
install_to() {
	make -s -C "$userlib" install OUTPUT="$work/build" DESTDIR="$1" \
		PREFIX=/usr LIBDIR=/usr/lib/test "${@:2}"
}

installs() {
	install_to "$root" || return
	local file
	for file in "$include"/{tlock.h,tlock.hpp,linux/tlock.h} \
		"$lib"/{libtlock.a,libtlock.so,libtlock.so.1} \
		"$lib/libtlock.so.1.$version" \
		"$lib/pkgconfig/libtlock.pc" \
		"$root"/usr/share/man/man3/{libtlock,tlock_open}.3 \
		"$root"/usr/bin/tlock "$root"/usr/share/man/man{1/tlock.1,4/tlock.4} \
		"$root/usr/share/bash-completion/completions/tlock" \
		"$root/usr/lib/systemd/system/tlock-monitor.service" \
		"$root"/usr/{sbin/tlockd,lib/systemd/system/tlockd.service} \
		"$root"/usr/share/man/man{8/tlockd.8,5/tlockd.conf.5} \
		"$root"/usr/share/doc/tlockd/examples/tlockd.conf \
		"$root"/usr/lib/python3/dist-packages/tlock/{__init__.py,ocs.py,py.typed}; do
		[[ -e $file ]] || { echo "$file: missing"; return 1; }
	done
}

# is_version VERSION DIR: everything installed in DIR reports this version
is_version() {
	local page said
	local said_by=(
		"$("$2/usr/bin/tlock" --version)"
		"$("$2/usr/sbin/tlockd" --version | sed s/^tlockd/tlock/)"
		"tlock $(PKG_CONFIG_PATH=$2/usr/lib/test/pkgconfig \
			pkg-config --modversion libtlock)"
		"tlock $(readlink "$2/usr/lib/test/libtlock.so.1" |
			sed 's/^libtlock\.so\.1\.//')"
	)

	for page in "$2"/usr/share/man/man{1/tlock.1,3/libtlock.3,4/tlock.4,5/tlockd.conf.5,8/tlockd.8}; do
		said_by+=("$(sed -n 's/^\.TH .*"\(tlock [^"]*\)".*/\1/p' "$page")")
	done
	for said in "${said_by[@]}"; do
		[[ $said == "tlock $1" ]] || { echo "'$said'"; return 1; }
	done
	[[ -f $2/usr/lib/test/libtlock.so.1 ]] && ! grep -r @VERSION@ "$2"
}

# An existing build is not mistaken for that of another version
one_version() {
	is_version "$version" "$root" &&
		install_to "$work/other" VERSION=9.9 &&
		is_version 9.9 "$work/other" &&
		install_to "$work/again" &&
		is_version "$version" "$work/again"
}

# Read dkms.conf in the ways that dkms does
dkms_version() {
	mkdir "$work/source" &&
		cp "$userlib/../dkms.conf" "$work/source" &&
		echo 9.9 >"$work/source/VERSION" || return
	local conf
	for conf in "$work/source/dkms.conf" ../source/dkms.conf ./dkms.conf; do
		[[ $(cd "$work/source" && bash -c ". $conf"'
			echo "$PACKAGE_NAME $PACKAGE_VERSION"') == "tlock 9.9" ]] ||
			return
	done
}

# The functions that the header declares, except the inline ones
declared() {
	# Only gcc has this option
	gcc -xc -I"$include" -aux-info "$work/declared" -fsyntax-only \
		"$include/tlock.h" &&
		sed -n 's|^/\*.*/include/tlock.h:.*\*/ extern .*\<\(tlock_[a-z_]*\) (.*|\1|p' \
			"$work/declared" | sort
}

# The symbols that nm lists with these options, and their versions
symbols() {
	nm --defined-only "$@" | awk '$2 == "T" { print $3 }' | sort
}

exports_what_is_declared() {
	[[ $(declared | wc -l) -ge 18 ]] &&
		diff <(declared | sed 's/$/@@TLOCK_1.0/') \
			<(symbols -D --with-symbol-versions "$lib/libtlock.so.1")
}

static_defines_no_more() {
	diff <(declared) <(symbols -g "$lib/libtlock.a")
}

soname() {
	readelf -d "$lib/libtlock.so" | grep -q 'SONAME.*\[libtlock.so.1\]'
}

needs_only_libc() {
	[[ $(readelf -d "$lib/libtlock.so" | grep NEEDED) == *'[libc.so.6]' ]]
}

# The library uses no locks of its own, no clock and no threads; but it uses a
# futex, by syscall(2), for tlock_cancel() and a call that runs into it
calls_little() {
	! nm -D --undefined-only "$lib/libtlock.so" |
		grep -E 'pthread|mtx_|clock|time|sem_|sleep|poll'
}

# header COMPILER... FILE: it compiles alone and included twice, without
# warnings
header() {
	printf '#include <%s>\n#include <%s>\n' "${@: -1}" "${@: -1}" |
		"${@:1:$#-1}" -Wall -Wextra -Wundef -pedantic -Werror \
			-I"$include" -fsyntax-only -
}

# example SECTION: the example in a section of the manual page
example() {
	sed -n "/^\\.S[HS] $1/,/^\\.EE/p" "$userlib/man/libtlock.3" |
		sed '1,/^\.EX/d; /^\.EE/d; s/\\e/\\/g; s/\\-/-/g'
}

# runs PROGRAM [NAME]: it works or, without a device, says why not. It takes the
# first lock, or the one with this name, which it gets from the environment.
runs() {
	local output

	output=$(TLOCK=${2:-} "$1" 2>&1)
	if [[ $output != "the instrument is mine" &&
		$output != "/dev/tlock${2:+-$2}: "* ]]; then
		echo "it says: $output"
		return 1
	fi
}

# compiles_shared FILE: the example, which is C99, with the shared library
compiles_shared() {
	# shellcheck disable=SC2046 # words
	$CC -std=c99 -pedantic -Wall -Wextra -Werror -o "$work/shared" \
		"$1" $(pkg-config --cflags --libs libtlock) &&
		readelf -d "$work/shared" | grep -q 'NEEDED.*libtlock.so.1'
}

builds_shared() {
	compiles_shared "$1" && runs "$work/shared"
}

# It watches the lock as long as that exists
builds_watching() {
	compiles_shared "$work/watching.c" &&
		[[ $(TLOCK=nosuchlock "$work/shared" 2>&1) == \
			"/dev/tlock-nosuchlock: "* ]]
}

# This example is C++11, too
builds_static() {
	# shellcheck disable=SC2046 # words
	$CXX -xc++ -std=c++11 -pedantic -Wall -Wextra -Werror -static \
		-o "$work/static" "$work/example.c" -xnone \
		$(pkg-config --static --cflags --libs libtlock) &&
		runs "$work/static"
}

builds_cpp() {
	cat >"$work/example.cpp" <<-'END'
		#include <iostream>
		#include <mutex>
		#include <tlock.hpp>

		int main()
		try {
			libtlock::contender lock("set range");
			std::scoped_lock held(lock);

			std::cout << "the instrument is mine\n";
		} catch (const std::system_error &error) {
			std::cout << error.what() << '\n';
		}
	END
	# shellcheck disable=SC2046 # words
	$CXX -std=c++17 -Wall -Wextra -Werror -o "$work/cpp" \
		"$work/example.cpp" $(pkg-config --cflags --libs libtlock) &&
		runs "$work/cpp"
}

# Each program that was built, and the command
takes_lock_by_name() {
	printf '#!/bin/sh\nexec %q run -n -- echo "the instrument is mine" 2>&1 |\n%s\n' \
		"$root/usr/bin/tlock" 'sed "s/^tlock: //"' >"$work/command"
	chmod +x "$work/command"
	runs "$work/shared" psu && runs "$work/static" psu &&
		runs "$work/cpp" psu && runs "$work/command" psu &&
		runs "$work/command"
}

# builds_ours COMPILER... FILE: an example builds with what is installed
builds_ours() {
	# shellcheck disable=SC2046 # words
	"$@" -Wall -Wextra -Werror -o "$work/ours" \
		$(pkg-config --cflags --libs libtlock) && "$work/ours"
}

# Unlike the other examples, it cannot do without an argument, and says so
builds_server() {
	local status=0

	builds_ours "$CC" "$userlib/examples/server.c" || status=$?
	[[ $status -eq 2 ]]
}

manual_has_all() {
	local name missing=0

	for name in tlock_scoped $(declared); do
		grep -q "^\.B.*\<$name(" "$userlib/man/libtlock.3" &&
			grep -qw "$name" <(sed -n '/^.SH NAME/,/^.SH SYN/p' \
				"$userlib/man/libtlock.3") && continue
		echo "$name is not in libtlock(3)"
		missing=1
	done
	return "$missing"
}

# top MAKE-ARGUMENT...: make of the whole tree, into the directory "all"
top() {
	make -s -C "$userlib/.." OUTPUT="$work/build" DESTDIR="$work/all" \
		PREFIX=/usr LIBDIR=/usr/lib/test "$@"
}

installs_all() {
	local file

	top install || return
	for file in usr/bin/tlock usr/lib/udev/rules.d/{60-tlock,65-tlock-serial}.rules \
		usr/lib/modules-load.d/tlock.conf \
		"usr/src/tlock-$version"/{dkms.conf,Kbuild,VERSION,module/lock.c} \
		"usr/src/tlock-$version/uapi/linux/tlock.h"; do
		[[ -e $work/all/$file ]] || { echo "$file: missing"; return 1; }
	done
}

# Removes what other versions left, too, but nobody else's files. Twice is fine.
uninstalls_all() {
	local left

	mkdir "$work/all/usr/lib/python3/dist-packages/tlock/__pycache__" &&
		mv "$work/all/usr/src/tlock-$version" "$work/all/usr/src/tlock-0.0" &&
		ln -s libtlock.3 "$work/all/usr/share/man/man3/tlock_gone.3" &&
		touch "$work/all/usr/lib/test/libtlock.so.1.0.0" \
			"$work/all/usr/lib/modules-load.d/other.conf" &&
		top uninstall &&
		top uninstall || return
	left=$(find "$work/all" ! -type d)
	[[ $left == "$work/all/usr/lib/modules-load.d/other.conf" ]] && return
	echo "$left"
	return 1
}

# Where the libraries of tlockd are missing, all else is built and installed
without_tlockd() {
	local said

	said=$(install_to "$work/less" PKG_CONFIG=false 2>&1) &&
		grep -q "tlockd is not built, .*: on Debian, install .*libcurl4-openssl-dev" \
			<<<"$said" && "$work/less/usr/bin/tlock" --version &&
		[[ ! $(find "$work/less" -name '*tlockd*') ]] || return
	said=$(make -s -C "$userlib" tlockd OUTPUT="$work/build" PKG_CONFIG=false \
		2>&1) && return 1
	grep -q "tlockd is not built, " <<<"$said"
}

# unit NAME COMMAND: systemd's own check finds that the unit is valid, and the
# command there
unit() {
	# It looks for other units and programs of this host, too
	mkdir -p "$work/unit" &&
		sed "s|=/usr/|=$root/usr/|" \
			"$root/usr/lib/systemd/system/$1.service" \
			>"$work/unit/$1.service" &&
		grep -q "^ExecStart=$root$2$" "$work/unit/$1.service" || return
	! systemd-analyze verify --man=no "$work/unit/$1.service" 2>&1 | grep "$1"
}

echo "TAP version 13"
echo "1..29"
try installs installs
try one_version one_version
try without_tlockd without_tlockd
try dkms_version dkms_version
try exports_what_is_declared exports_what_is_declared
try static_defines_no_more static_defines_no_more
try soname soname
try needs_only_libc needs_only_libc
try calls_little calls_little
try header_c99 header "$CC" -xc -std=c99 tlock.h
try header_c17 header "$CC" -xc -std=c17 tlock.h
try header_cpp11 header "$CXX" -xc++ -std=c++11 tlock.h
try header_cpp17 header "$CXX" -xc++ -std=c++17 tlock.hpp
try header_cpp20 header "$CXX" -xc++ -std=c++20 tlock.hpp
example EXAMPLES >"$work/example.c"
example "Event loops" >"$work/loop.c"
try builds_shared builds_shared "$work/example.c"
try builds_event_loop builds_shared "$work/loop.c"
example Watching >"$work/watching.c"
try builds_watching builds_watching
try builds_static builds_static
try builds_cpp builds_cpp
try takes_lock_by_name takes_lock_by_name
try builds_epoll builds_ours "$CC" "$userlib/examples/epoll.c"
try builds_server builds_server
try builds_watch builds_ours "$CC" "$userlib/examples/watch.c"
try builds_coroutine builds_ours "$CXX" -std=c++20 \
	"$userlib/examples/coroutine.cpp"
try unit unit tlock-monitor "/usr/bin/tlock monitor --journal"
try unit_of_tlockd unit tlockd /usr/sbin/tlockd
try manual_has_all manual_has_all
try installs_all installs_all
try uninstalls_all uninstalls_all
exit $failed
