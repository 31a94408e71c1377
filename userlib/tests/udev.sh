#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# udev.sh [TEST...]: tests of the files in userlib/udev, with udev itself and USB
# devices that are plugged in and out. Prints KTAP. Run it as root by scripts/vm
# with --no-load and --monitor. It needs the programs that scripts/build builds,
# and TLOCK_KO, the path of the module.
#
# The files in /etc that userlib/udev/README.md shows are tested as they are
# printed there.

set -u

here=$(dirname "$(readlink -f "$0")")
top=$(readlink -f "$here/../..")
. "$top/scripts/options"
. "$top/scripts/try"
operands 0 999 "$@"
udev=$top/userlib/udev
class=/sys/class/tlock
links=/dev/serial
# What the names of QEMU's adapters have before and after their serial numbers
adapter=usb-QEMU_QEMU_USB_SERIAL
port=-if00-port0
export PATH=$top/build/userlib:$PATH:/usr/sbin:/sbin

[[ -d /run/tlock-vm ]] || {
	echo "udev.sh: needs a guest of scripts/vm" >&2
	exit 1
}
work=$(mktemp -d)
cd "$work" || exit 1

# until_ok COMMAND...: wait until it succeeds; fail after a minute
until_ok() {
	local end=$((SECONDS + 60))

	until "$@" >failure 2>&1; do
		((SECONDS < end)) || {
			echo "still fails: $*"
			cat failure
			return 1
		}
		sleep 0.1
	done
}

# udev looks who sends it a request, and ignores one that comes too early for
# that, just when it has accepted the connection
ignored="Invalid sender uid"

# heeded COMMAND...: run it again if udev ignored a request
heeded() {
	local before=-1

	until [[ $(grep -c "$ignored" udev.log) == "$before" ]]; do
		before=$(grep -c "$ignored" udev.log)
		"$@" || return
	done
}

reload() {
	heeded udevadm control --reload
}

# quietly COMMAND...: it succeeds, and udev reports nothing meanwhile
quietly() {
	local before

	before=$(wc -l <udev.log)
	"$@" && udevadm settle &&
		not grep -v "$ignored" <(tail -n +$((before + 1)) udev.log)
}

# example FILE: install what README.md shows as this file
example() {
	mkdir -p "${1%/*}"
	awk -v first="# $1" '
		/^```/ { inside = 0 }
		$0 == first { inside = 1 }
		inside' "$udev/README.md" >"$1"
	[[ -s $1 ]] || {
		echo "README.md does not show $1"
		return 1
	}
}

### USB devices

# qmp COMMAND [ARGUMENTS]: a command for QEMU's monitor
qmp() {
	local answer

	echo "{\"execute\": \"$1\", \"arguments\": {${2:-}}}" >&9
	while read -rt 60 -u 9 answer; do
		[[ $answer == *'"event":'* ]] || break
	done
	[[ $answer == '{"return"'* ]] || {
		echo "QEMU answers to $*: $answer"
		return 1
	}
}

# plug PORT NUMBER: plug an adapter with this serial number into a USB port, and
# wait until udev has dealt with it. udev ignores a number that has a comma.
plug() {
	plug_in "$@" && plugged_in "$1"
}

plug_in() {
	local chardev=chardev-$EPOCHREALTIME

	qmp chardev-add "\"id\": \"$chardev\",
		\"backend\": {\"type\": \"null\", \"data\": {}}" &&
		qmp device_add "\"driver\": \"usb-serial\", \"id\": \"usb$1\",
			\"port\": \"$1\", \"chardev\": \"$chardev\",
			\"serial\": \"$2\", \"always-plugged\": true"
}

plugged_in() {
	until_ok test -c "$links/by-path/pci-0000:00:14.0-usb-0:$1:1.0-port0" &&
		udevadm settle
}

unplug() {
	local device

	for device; do
		qmp device_del "\"id\": \"usb$device\"" &&
			until_ok none "/sys/bus/usb/devices/1-$device" || return
	done
	udevadm settle
}

# plug_gadget MANUFACTURER: plug in a device like those that need no adapter: it
# is this kernel that pretends to be one
plug_gadget() {
	modprobe g_serial iManufacturer="$1" iProduct=AFG iSerialNumber=7 &&
		until_ok test -c /dev/ttyACM0 && udevadm settle
}

unplug_gadget() {
	modprobe -r g_serial && until_ok none /dev/ttyACM0 && udevadm settle
}

### Locks

# A holder that was killed may still be closing its file
unload() {
	until_ok rmmod tlock && udevadm settle
}

load() {
	modprobe -d "$work" tlock && udevadm settle
}

none() {
	[[ ! -e $1 ]] || {
		echo "$1 exists"
		return 1
	}
}

# has LOCK [MODE USER GROUP]: wait until it has this device file
has() {
	until_ok is "${2:-664 root dialout}" stat -c '%a %U %G' "/dev/tlock-$1"
}

# locks NAME...: wait until there are just these, in this order, and /dev/tlock
locks() {
	until_ok is "$(printf '%s\n' tlock "${@/#/tlock-}")" \
		ls --ignore '*_lock' "$class"
}

# hold LOCK: take it in a process that lasts
hold() {
	tlock run -d "$1" -j scan sleep 10000 >/dev/null 2>&1 &
	echo $! >holder
	until_ok is scan cat "$class/tlock-$1/job"
}

let_go() {
	kill "$(<holder)"
	rm holder
}

# held LOCK: print who holds the lock
held() {
	cat "$class/tlock-$1"/{job,pid,token}
}

# clean: undo what a test has left: processes, USB devices, the module, rules
clean() {
	local device

	[[ ! -e holder ]] || let_go
	for device in 1 2; do
		[[ ! -e /sys/bus/usb/devices/1-$device ]] || unplug "$device"
	done
	[[ ! -d /sys/module/g_serial ]] || unplug_gadget
	[[ ! -d $class ]] || unload
	rm -f /etc/modprobe.d/*.conf /etc/udev/rules.d/*.rules \
		/etc/tmpfiles.d/*.conf
	reload
}

### Start udev, with our rules, and without the module

make -s -C "$top" install-rules || exit
# A place of its own makes depmod quick
modules=lib/modules/$(uname -r)
mkdir -p "$modules" usr
ln -s ../lib usr/lib
cp "$TLOCK_KO" "$modules"
touch "$modules"/modules.{order,builtin,builtin.modinfo}
depmod -b . || exit
# The group in an example
echo psu:x:321: >>/etc/group

SYSTEMD_LOG_TARGET=console SYSTEMD_LOG_LEVEL=warning \
	/lib/systemd/systemd-udevd >udev.log 2>&1 &
trap 'kill $!' EXIT
until_ok udevadm control --ping || exit
modprobe -a virtio_console xhci_pci dummy_hcd || exit
# Some kernels have this built in: it was there before udev
udevadm trigger -s virtio-ports
until_ok test -c /dev/virtio-ports/monitor || exit
exec 9<>/dev/virtio-ports/monitor
# Its greeting, and the answer to ours
until_ok read -rt 60 -u 9 _ && qmp qmp_capabilities || exit

### Tests. Each begins without the module, and with nothing plugged in.

plugged_in_before_load() {
	local first=usb-Acme_AFG_7-if00 second=${adapter}_early$port

	plug_gadget Acme && plug 1 early && [[ -c $links/by-id/$second ]] &&
		none "$class" && load && locks "$first" "$second" &&
		has "$first" && has "$second"
}

plugged_in_after_load() {
	local lock=${adapter}_A6008isP$port

	load && plug 1 A6008isP && locks "$lock" && has "$lock" &&
		is ../../ttyUSB0 readlink "$links/by-id/$lock" &&
		is "../../tlock-$lock" readlink "$links/by-id/tlock-$lock" &&
		is "E: TLOCK=$lock" grep TLOCK= <(udevadm info /dev/ttyUSB0)
}

outlasts_its_adapter() {
	local lock=${adapter}_A6008isP$port before

	load && plug 1 A6008isP && hold "$lock" && before=$(held "$lock") &&
		unplug 1 && none "$links/by-id/$lock" &&
		[[ -c $links/by-id/tlock-$lock ]] &&
		is "$before" held "$lock" && plug 2 A6008isP &&
		[[ -c $links/by-id/$lock ]] && is "$before" held "$lock" &&
		has "$lock" && locks "$lock" &&
		not tlock run -d "$links/by-id/tlock-$lock" -w 0 true &&
		let_go &&
		until_ok tlock run -d "$links/by-id/tlock-$lock" -w 0 true
}

# Unplugging an adapter does not bring back a lock that was deleted
deleted() {
	local lock=${adapter}_A6008isP$port

	load && plug 1 A6008isP && has "$lock" && udevadm settle &&
		echo "$lock" >"$class/delete_lock" && locks && unplug 1 && locks &&
		none "$links/by-id/tlock-$lock" && plug 1 A6008isP && has "$lock"
}

two_at_once() {
	load && plug_in 1 one && plug_in 2 two && plugged_in 1 &&
		plugged_in 2 && locks "${adapter}_one$port" "${adapter}_two$port" &&
		has "${adapter}_one$port" && has "${adapter}_two$port"
}

cdc_acm() {
	load && plug_gadget Acme && locks usb-Acme_AFG_7-if00 &&
		has usb-Acme_AFG_7-if00 &&
		[[ -c $links/by-id/tlock-usb-Acme_AFG_7-if00 ]]
}

without_serial_numbers() {
	load && plug 1 a,a && plug 2 b,b && locks "$adapter$port"
}

unsuitable_names() {
	load && plug 1 'a\\x2fb' &&
		[[ -c $links/by-id/${adapter}_a\\x2fb$port ]] &&
		not grep TLOCK= <(udevadm info /dev/ttyUSB0) &&
		plug_gadget Würth &&
		[[ -c $links/by-id/usb-Würth_AFG_7-if00 ]] && locks
}

# Without what 60-serial.rules needs, there is no link and no lock
no_names() {
	cat >/etc/udev/rules.d/61-no-names.rules <<-'END'
		ENV{ID_PATH}=="*usb-0:1:1.0", ENV{ID_SERIAL}=""
		ENV{ID_PATH}=="*usb-0:2:1.0", ENV{ID_USB_INTERFACE_NUM}=""
	END
	reload && load && plug 1 one && plug 2 two && locks
}

# Only serial ports get locks
keyboard() {
	load && qmp device_add '"driver": "usb-kbd", "id": "usb1", "port": "1"' &&
		until_ok compgen -G '/dev/input/by-id/usb-*Keyboard*' &&
		udevadm settle && locks
}

named_by_rule() {
	example /etc/udev/rules.d/61-psu.rules && reload &&
		load && plug 2 plain && locks psu && has psu &&
		plug 1 other && locks psu "${adapter}_other$port"
}

granted_by_rule() {
	load && echo psu >"$class/new_lock" && echo pump >"$class/new_lock" &&
		udevadm settle && has psu &&
		example /etc/udev/rules.d/61-tlock-psu.rules &&
		reload && udevadm trigger -s tlock &&
		has psu "660 root psu" && has pump && unload && load &&
		echo psu >"$class/new_lock" && udevadm settle &&
		has psu "660 root psu"
}

# logger, which the rule runs, writes to a socket that nobody has in a guest
abandoned_and_revoked() {
	local rule=/etc/udev/rules.d/61-tlock-lost.rules pid

	example "$rule" &&
		sed -i "s|/usr/bin/logger -t tlock|$work/log|" "$rule" &&
		printf '#!/bin/sh\necho "$*" >>%s/logged\n' "$work" >log &&
		chmod +x log && reload && load && echo psu >"$class/new_lock" &&
		udevadm settle || return
	tlock run --device psu --no-fork --job 'set voltage' sleep 60 &
	pid=$!
	until_ok grep -q 'set voltage' "$class/tlock-psu/job" && kill -9 "$pid" &&
		until_ok test -s logged &&
		is "tlock-psu abandoned: PID $pid, set voltage" cat logged &&
		rm logged || return
	tlock run --device psu --job 'set current' sleep 60 &
	pid=$!
	until_ok grep -q 'set current' "$class/tlock-psu/job" &&
		tlock revoke psu && until_ok test -s logged &&
		is "tlock-psu revoked: PID $pid, set current" cat logged &&
		has psu
}

# Rules that are installed last make locks for adapters that are there
installed_last() {
	rm /usr/local/lib/udev/rules.d/*tlock* && reload &&
		load && plug 1 early && locks &&
		heeded make -s -C "$top" install-rules && udevadm settle &&
		locks "${adapter}_early$port" && has "${adapter}_early$port"
}

modprobe_d() {
	example /etc/modprobe.d/tlock.conf &&
		echo options tlock names=other >/etc/modprobe.d/other.conf &&
		load && locks lakeshore other psu && has lakeshore
}

# It prints nothing and succeeds without the module, at boot, and whenever it
# runs again
tmpfiles_d() {
	local tmpfiles=(systemd-tmpfiles --create /etc/tmpfiles.d/tlock.conf)

	example /etc/tmpfiles.d/tlock.conf && is "" "${tmpfiles[@]}" --boot &&
		load && is "" "${tmpfiles[@]}" && locks &&
		is "" "${tmpfiles[@]}" --boot && locks chopper heater &&
		udevadm settle && has heater &&
		is "" "${tmpfiles[@]}" && locks chopper heater
}

# systemd finds no fault with the order at boot
tmpfiles_order() {
	local unit=systemd-tmpfiles-setup.service

	example "/etc/systemd/system/$unit.d/tlock.conf" &&
		is "" systemd-analyze verify --man=no "$unit"
}

# run TEST: it succeeds in a clean state, and udev has nothing to report
run() {
	clean && quietly "$1"
}

tests=(
	plugged_in_before_load
	plugged_in_after_load
	outlasts_its_adapter
	deleted
	two_at_once
	cdc_acm
	without_serial_numbers
	unsuitable_names
	no_names
	keyboard
	named_by_rule
	granted_by_rule
	abandoned_and_revoked
	installed_last
	modprobe_d
	tmpfiles_d
	tmpfiles_order
)
((!$#)) || tests=("$@")
failed=0
echo "TAP version 13"
echo "1..${#tests[@]}"
for test in "${tests[@]}"; do
	if [[ $test == tmpfiles_* ]] && ! command -v systemd-analyze >/dev/null; then
		number=$((number + 1))
		echo "ok $number $test # SKIP systemd is not installed"
	else
		try "$test" run "$test"
	fi
done
exit $failed
