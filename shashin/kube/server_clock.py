"""The API server's clock, to which the times of all of its objects refer.

This machine's own clock may be wrong by hours, and then steps would seem to have run for too long, and
images to be old, as soon as they are made.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from shashin.metrics import kubernetes as metrics
from shashin.runtime.scope import Loop, LoopScope

if TYPE_CHECKING:
    from shashin.kube.client import KubeClient

REPORTED_SECONDS: Final = 5.0
"""A skew from which on it is a problem."""

_OBSERVATIONS: Final = 8
_NO_SKEW_SECONDS: Final = 2.0
"""Below it, the header's resolution of a second and slow responses may be the cause."""
_LOOK_SECONDS: Final = 2.0
_PART: Final = "clock"


class ServerClock:
    """Tells the time of a server that says it in every response, HTTP's ``Date``."""

    def __init__(
        self,
        local: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._local = local
        self._steady = steady
        self._seen: deque[float] = deque(maxlen=_OBSERVATIONS)
        """The server's time less the steady clock's, which nobody sets."""

    def observe(self, date: str | None) -> None:
        """Take note of a ``Date`` that has just arrived; anything else is ignored."""
        try:
            server = parsedate_to_datetime(date or "")
        except ValueError:
            return
        # Half of the second that was cut off.
        self._seen.append(server.timestamp() + 0.5 - self._steady())
        metrics.CLOCK_SKEW_SECONDS.set(self.skew_seconds)

    @property
    def skew_seconds(self) -> float:
        """How far this machine's clock is ahead; 0 if that is less than can be told."""
        skew = self._local() - self._server_time()
        return skew if abs(skew) > _NO_SKEW_SECONDS else 0.0

    def now(self) -> float:
        """Return the server's time, in Unix seconds; this machine's own as long as there is no other."""
        return self._local() - self.skew_seconds

    def _server_time(self) -> float:
        # Of the response that took the least time to arrive.
        return self._steady() + max(self._seen) if self._seen else self._local()

    def utc(self) -> datetime:
        """Return the server's time in whole seconds, as objects have it."""
        return datetime.fromtimestamp(int(self.now()), UTC)


def clock_loop(client: KubeClient) -> Loop:
    """Return a loop that reports a clock which is wrong."""

    async def run(loop: LoopScope) -> None:
        while loop.next_turn():
            skew = client.clock.skew_seconds
            if abs(skew) >= REPORTED_SECONDS:
                way = "ahead of" if skew > 0 else "behind"
                loop.degraded(
                    _PART,
                    f"this machine's clock is {abs(skew):.0f} seconds {way} the API server's: "
                    "check the time service (NTP) of both; meanwhile the API server's counts",
                )
            else:
                loop.clear(_PART)
            await loop.sleep(_LOOK_SECONDS)

    return Loop("clock", run)
