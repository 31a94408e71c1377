# SPDX-License-Identifier: GPL-2.0-only
"""Arguments of agents"""
import sys


def parse_args():
    return sys.argv[1], int(sys.argv[2])
