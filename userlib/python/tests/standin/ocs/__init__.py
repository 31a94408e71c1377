# SPDX-License-Identifier: GPL-2.0-only
"""A stand-in for OCS: modules with the same names, to test tlock.ocs with."""
