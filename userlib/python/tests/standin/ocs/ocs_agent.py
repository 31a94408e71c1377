# SPDX-License-Identifier: GPL-2.0-only
"""A module of the package that uses the class"""
from .ocs_twisted import Pacemaker, TimeoutLock


class OCSAgent:
    def __init__(self):
        self.lock = TimeoutLock()
        self.pacemaker = Pacemaker()
