# SPDX-License-Identifier: LGPL-2.1-or-later
"""What all kinds of locks and acquisitions say of their last grant."""
from errno import ESTALE
from typing import Optional

from ._device import ABANDONED, REVOKED, Revoked, Terms


class Grant:
    """The last grant of an acquisition"""

    __slots__ = "token", "_terms", "_result"

    token: int
    """Number of its last grant, 0 before the first. Each grant of a lock, to
    any contender, has a larger number, so that a device or a log can recognize
    a late message from an earlier holder."""

    # _terms: the job and the lease
    # _result: the result that the kernel returned with the grant
    _terms: Terms
    _result: int

    @property
    def abandoned(self) -> bool:
        """Whether its last grant came after a holder that ended without a
        release: the instrument may be in the middle of a command. False after a
        release_and_acquire() that let nobody in."""
        return self._result & ABANDONED != 0

    @property
    def revoked(self) -> bool:
        """Whether its last grant came after one that was revoked: the instrument
        may be in the middle of a command, and the earlier holder may even still
        be talking to it. False after a release_and_acquire() that let nobody
        in."""
        return self._result & REVOKED != 0

    def _say_job(self) -> str:
        return self._terms.job.decode("utf-8", "replace")

    def _make_revoked(self, path: str) -> Revoked:
        return Revoked(ESTALE, "job %r has lost the lock: its lease ended, or "
                       "it was revoked" % self._say_job(), path)

    def _loss(self, number: int, path: str, text: str) -> RuntimeError:
        """The exception for an errno, with this text if it is not ESTALE"""
        if number == ESTALE:
            return self._make_revoked(path)
        return RuntimeError(text)


class LastGrant:
    """The last grant of any acquisition of a lock's object"""

    # The acquisition that was granted last; it may be over
    _granted: Optional[Grant] = None

    @property
    def abandoned(self) -> bool:
        """Whether this object last acquired the lock after a holder that ended
        without a release: the instrument may be in the middle of a command. A
        release_and_acquire() that let nobody in makes it False."""
        return self._granted is not None and self._granted.abandoned

    @property
    def revoked(self) -> bool:
        """Whether this object's last grant came after one that was revoked: the
        instrument may be in the middle of a command, and the earlier holder may
        even still be talking to it. A release_and_acquire() that let nobody in
        makes it False."""
        return self._granted is not None and self._granted.revoked

    @property
    def token(self) -> int:
        """Number of the last grant to this object, 0 before the first.

        Each grant of a lock, to any contender, has a larger number, so that a
        device or a log can recognize a late message from an earlier holder.
        """
        return 0 if self._granted is None else self._granted.token
