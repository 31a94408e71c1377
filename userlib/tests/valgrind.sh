#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Under the name valgrind_TEST, beside TEST: runs it under valgrind. Each test
# of the harness ends in a process of its own, whose errors and leaks make that
# test fail, by the exit status, if nothing else does. What is still reachable
# then belongs to its parent.

exec valgrind --quiet --leak-check=full --error-exitcode=99 \
	"${0%/*}/${0##*/valgrind_}"
