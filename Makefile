# SPDX-License-Identifier: GPL-2.0-only
#
# For people who expect a Makefile: besides install and uninstall, each target
# only calls kbuild or a script.

KDIR ?= /lib/modules/$(shell uname -r)/build
VERSION := $(shell cat VERSION)
# udev and systemd read their files below /usr/local and /usr
PREFIX ?= /usr/local
rules := $(DESTDIR)$(PREFIX)/lib/udev/rules.d
loaded := $(DESTDIR)$(PREFIX)/lib/modules-load.d
source := $(DESTDIR)/usr/src/tlock-$(VERSION)

# A kernel that clang built needs modules that clang built
LLVM ?= $(shell ! grep -qsx CONFIG_CC_IS_CLANG=y \
	$(KDIR)/include/config/auto.conf || echo 1)

all: modules

# Build the module for the running kernel, or for the one whose headers KDIR has
modules:
	@[ -e $(KDIR) ] || { echo "$(KDIR) is missing: install the" \
		"kernel's headers (Debian: linux-headers-$$(uname -r))" >&2; \
		exit 1; }
	$(MAKE) -C $(KDIR) M=$(CURDIR) LLVM=$(LLVM) $@

# Install the module by DKMS, for the running kernel and for each later one when
# it is installed; the rules that grant access to it and load it at boot; and
# the userland. With DESTDIR, dkms is not called.
install:
	@[ "$(DESTDIR)" ] || command -v dkms >/dev/null || { echo "dkms is" \
		"missing: install it (Debian: dkms)" >&2; exit 1; }
	$(MAKE) -C userlib
	$(no_package)
	$(remove_module)
	$(MAKE) install-source
	[ "$(DESTDIR)" ] || dkms install tlock/$(VERSION)
	$(MAKE) install-rules
	$(MAKE) -C userlib install
	$(about_signatures)

# What DKMS needs
install-source:
	install -d $(source)/module $(source)/uapi/linux
	install -m 644 COPYING Kbuild Makefile VERSION dkms.conf $(source)
	install -m 644 module/*.[ch] $(source)/module
	install -m 644 uapi/linux/tlock.h $(source)/uapi/linux

# The rules also apply to locks and adapters that already exist
install-rules:
	install -d $(rules) $(loaded)
	install -m 644 userlib/udev/*.rules $(rules)
	install -m 644 userlib/udev/tlock.conf $(loaded)
	[ "$(DESTDIR)" ] || [ ! -S /run/udev/control ] || { \
		udevadm control --reload && \
		udevadm trigger --subsystem-match=tlock; }

# Remove all of that, for this and other versions
uninstall:
	$(remove_module)
	rm -f $(rules)/6[05]-tlock*.rules $(loaded)/tlock.conf
	for dir in $(rules) $(dir $(rules)) $(loaded); do \
		[ ! -d $$dir ] || rmdir --ignore-fail-on-non-empty $$dir; \
	done
	$(MAKE) -C userlib uninstall

# The packages have files in the same places, for the same module
define no_package
	@[ "$(DESTDIR)" ] || { case "$$(dpkg-query -W -f \
			'$${db:Status-Status}' tlock-dkms 2>/dev/null)" in \
		"" | not-installed | config-files) true ;; \
		*) false ;; \
		esac && ! rpm -q tlock-kmod-common >/dev/null 2>&1; } || { \
		echo "the module is a package's: remove that first (tlock-dkms;" \
			"Fedora: tlock-kmod-common), or install only the" \
			"userland: make -C userlib install" >&2; \
		exit 1; }
endef

# The kernel may refuse the module, as it is only DKMS's key that has signed it
define about_signatures
	@[ "$(DESTDIR)" ] || { \
		! grep -qsx Y /sys/module/module/parameters/sig_enforce && \
		! grep -qsF -e '[integrity]' -e '[confidentiality]' \
			/sys/kernel/security/lockdown; } || { \
		echo "This kernel loads only modules that are signed with a key" \
			"that it trusts (Secure Boot). Unless DKMS's key is" \
			"enrolled already, install mokutil, run 'mokutil" \
			"--import /var/lib/dkms/mok.pub', choose a password," \
			"reboot, select 'Enroll MOK' and type the password." >&2; }
endef

# What a package has installed is the package's to remove, and a copy of the whole
# source is somebody's own
define remove_module
	for source in $(DESTDIR)/usr/src/tlock-*; do \
		[ -f "$$source/dkms.conf" ] && [ ! -e "$$source/scripts" ] && \
			! dpkg -S "$$source" >/dev/null 2>&1 || continue; \
		version=$${source##*/tlock-}; \
		[ "$(DESTDIR)" ] || [ ! -e "/var/lib/dkms/tlock/$$version" ] || \
			dkms remove "tlock/$$version" --all || exit 1; \
		rm -r "$$source" || exit 1; \
	done
endef

check:
	scripts/check

demo:
	scripts/demo

clean:
	$(RM) -r build userlib/python/build userlib/python/tlock.egg-info
	[ ! -e $(KDIR) ] || $(MAKE) -C $(KDIR) M=$(CURDIR) clean

.PHONY: all modules install install-source install-rules uninstall check demo \
	clean
