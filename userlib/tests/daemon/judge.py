# SPDX-License-Identifier: GPL-2.0-only
"""Says whether all grants of a test are as they must be."""
from daemon.gate import ABANDONED, REVOKED, SECOND


def _by_lock(items):
    locks = {}
    for item in sorted(items, key=lambda item: item.begin):
        locks.setdefault(item.lock, []).append(item)
    return locks.values()


def _disjoint(items, what):
    """No two overlap in time."""
    for before, after in zip(items, items[1:]):
        if before.end is None or before.end > after.begin:
            yield "%s of %s on %s overlaps that on %s%s" % (
                what, before.lock, before.host, after.host,
                "" if before.end is None else
                ", by %.6f s" % ((before.end - after.begin) / SECOND))


def judge(ledger):
    """Returns what is wrong, as a list of lines."""
    faults = list(ledger.errors)
    for openings in _by_lock(ledger.openings):
        faults += _disjoint(openings, "opening")
    for grants in _by_lock(ledger.grants):
        faults += _disjoint(grants, "grant")
        for before, after in zip(grants, grants[1:]):
            if before.token >= after.token:
                faults.append("the tokens do not grow: %r, %r" %
                              (before, after))
            # A host that vanished may have hidden more than it knew
            if ((before.how == "revoked" and not after.result & REVOKED) or
                    (before.how == "abandoned" and
                     not after.result & (ABANDONED | REVOKED))):
                faults.append("the next grant does not say how one ended: "
                              "%r, %r" % (before, after))
    return faults
