# SPDX-License-Identifier: GPL-2.0-only
#
# For people who expect a Makefile: each target only calls kbuild or a script.

KDIR ?= /lib/modules/$(shell uname -r)/build

all: modules

# The module for the running kernel, or the one whose headers are in KDIR
modules modules_install:
	@[ -e $(KDIR) ] || { echo "$(KDIR) is missing: install the" \
		"kernel's headers (Debian: linux-headers-$$(uname -r))" >&2; \
		exit 1; }
	$(MAKE) -C $(KDIR) M=$(CURDIR) $@

check:
	scripts/check

demo:
	scripts/demo

clean:
	$(RM) -r build
	[ ! -e $(KDIR) ] || $(MAKE) -C $(KDIR) M=$(CURDIR) clean

.PHONY: all modules modules_install check demo clean
