"""Who gets in: API keys, their rates, and no more work than can be done in time.

Independent of the transport. A call passes ``check`` with its key, before anything of its request is read,
and then does its work within ``admitted``. Both raise errors of the one tree.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from services.router.concurrency_limit import ConcurrencyLimit
from services.router.refusal_rate import RefusalRate
from shashin.access.keyring import Keyring
from shashin.errors import DeadlineExceeded, Overloaded
from shashin.metrics import admission as metrics

_RETRY_SECONDS = 1.0


class Gate:
    """Decides on every call; one object for all ports of the router."""

    def __init__(
        self,
        keyring: Keyring | None,
        limit: ConcurrencyLimit | None,
        rate: RefusalRate | None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask for no key without a keyring, and shed no load without limit and rate."""
        self.keyring = keyring
        self.limit = limit
        self.rate = rate
        self._clock = clock
        self.calls = 0
        """That have come so far."""
        self._present = 0
        """Calls that have arrived and not ended: some of them have not begun with their work."""
        if limit is not None:
            metrics.LIMIT.set_function(lambda: limit.limit)
            metrics.IN_PROGRESS.set_function(lambda: limit.in_progress)
        if rate is not None:
            metrics.REFUSED_SHARE.set_function(lambda: rate.share)

    def check(self, key: Callable[[], str | None], *, sheds: bool) -> None:
        """Check a call's key, and whether there is room for any call at all.

        ``key`` returns the key that the call has, and is called only if one is needed. A call that looks at
        the state of the system is not shed, but needs its key.

        Raises:
            ApiKeyMissing: if the call has no key, and needs one.
            ApiKeyRefused: if its key is not accepted.
            RateLimited: if its key is used too often.
            Overloaded: if there is too much work already.
        """
        self.calls += 1
        if self.keyring is not None:
            caller = self.keyring.caller(key())
            if sheds:
                self.keyring.take(caller)
        if not sheds:
            return
        if self.rate is not None and self.rate.refuses():
            metrics.SHED.labels("arrivals").inc()
            raise _overloaded("more calls arrive than this router can answer")
        if self.limit is not None and not self.limit.fits(1.0, besides=self._present):
            metrics.SHED.labels("in_progress").inc()
            raise _overloaded("as many queries are in progress as can be answered in time")

    def arrived(self) -> Callable[[], None]:
        """Count a call that has passed ``check``, until what this returns is called, once."""
        self._present += 1
        return self._left

    def _left(self) -> None:
        self._present -= 1

    def admitted(self, kind: str, cost: float, seconds_left: float | None) -> Admission:
        """Admit work of a kind, which is done within the context that this returns.

        ``cost`` is in queries by one vector.

        Raises:
            DeadlineExceeded: if the caller's deadline has passed before anything was done.
            Overloaded: if there is too much work for it.
        """
        if seconds_left is not None and seconds_left <= 0:
            raise DeadlineExceeded("the deadline passed before the router began")
        if self.limit is not None and not self.limit.fits(cost):
            metrics.SHED.labels("in_progress").inc()
            raise _overloaded("this query costs more than can be answered in time besides others")
        return Admission(self.limit, kind, cost, self._clock)


class Admission:
    """Work that was admitted. A class, since a generator would take longer than all else here."""

    __slots__ = ("_alone", "_clock", "_cost", "_kind", "_limit", "_started")

    def __init__(
        self, limit: ConcurrencyLimit | None, kind: str, cost: float, clock: Callable[[], float]
    ) -> None:
        self._limit = limit
        self._kind = kind
        self._cost = cost
        self._clock = clock

    def __enter__(self) -> None:
        if self._limit is not None:
            self._started = self._clock()
            self._alone = self._limit.begin(self._cost, self._started)

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._limit is None:
            return
        now = self._clock()
        # What fails at once, or is cancelled, says nothing about how long work takes.
        told = error_type is None or issubclass(error_type, DeadlineExceeded)
        took = now - self._started if told else None
        self._limit.end(self._cost, self._kind, took, now, alone=self._alone)


def _overloaded(why: str) -> Overloaded:
    return Overloaded(
        f"{why}: retry after a pause, or add routers or endpoints",
        retry_after_seconds=_RETRY_SECONDS,
    )
