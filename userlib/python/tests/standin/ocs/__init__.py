# SPDX-License-Identifier: GPL-2.0-only
"""Stands in for OCS in the tests of tlock.ocs: modules of the same names."""
