#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Tests that the checkers of the debug kernels work, and that scripts/vm notices
# their reports: plants a bug for each in a guest. Prints KTAP. Run on the host.
#
# shellcheck disable=SC2317 # try calls them

set -u

here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$(dirname "$here")")
. "$top/scripts/options"
. "$top/scripts/try"
operands 0 0 "$@"
cd "$top" || exit 1

# For the kernels' logs, which are kept if a run fails
dir=$(mktemp -d "${TMPDIR:-/tmp}/tlock-test.XXXXXX")
trap 'rm -rf "$dir"' EXIT

# build KERNEL: build the module of bugs; if that fails, print make's log
build() {
	local image release log

	image=$(scripts/kernel "$1") || return
	release=${image##*/vmlinuz-}
	log=build/planted/$release/make.log
	mkdir -p "build/planted/$release"
	cp -u "$here"/planted/* "build/planted/$release"
	make -C "${image%/boot/*}/lib/modules/$release/build" \
		M="$top/build/planted/$release" UBSAN_SANITIZE=y modules \
		>"$log" 2>&1 ||
		cat "$log"
}

# plant KERNEL BUG: run a bug in a guest
plant() {
	local image options=()

	image=$(scripts/kernel "$1")
	# Only the leak needs kmemleak, which makes the kernel slow
	[[ $2 == leak ]] || options=(--append kmemleak=off)
	TMPDIR=$dir scripts/vm --kernel "$image" "${options[@]}" --no-load -- \
		/sbin/insmod "build/planted/${image##*/vmlinuz-}/planted.ko" \
		bug="$2" 2>&1
}

# found KERNEL BUG REPORT: the run fails, and the kernel reports this in our
# module
found() {
	local status

	plant "$1" "$2" >"$dir/said"
	status=$?
	cat "$dir/said"
	echo "exit status $status"
	((status == 125)) && grep -q "^vm: the kernel reported a problem" \
		"$dir/said" && grep -q "$3" "$dir/said" &&
		grep -qE 'planted(\.c|\]|\(O)' "$dir/said"
}

# finds KERNEL BUG REPORT: a test of that
finds() {
	try "$1_$2" found "$@"
}

failed=0
echo "TAP version 13"
echo "1..12"
{ build debug && build kcsan; } | sed 's/^/# /'
try debug_nothing plant debug nothing
try kcsan_nothing plant kcsan nothing
finds debug use_after_free "BUG: KASAN: .*use-after-free"
finds debug leak "unreferenced object"
finds debug lock_inversion "WARNING: possible circular locking dependency"
finds debug sleep_in_atomic "BUG: sleeping function called from invalid"
finds debug spinlock_in_raw_spinlock "BUG: Invalid wait context"
finds debug copied_mutex "WARNING: .* at kernel/locking/mutex.c"
finds debug freed_timer "WARNING: .* at lib/debugobjects.c"
finds debug bad_shift "UBSAN: shift-out-of-bounds"
finds debug bad_index "UBSAN: array-index-out-of-bounds"
finds kcsan race "BUG: KCSAN: data-race"
exit $failed
