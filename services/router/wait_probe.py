"""Measures how long a call waits until the router looks at it.

All that comes waits for the event loop: for its turn to be read, and then for the calls before it. Nothing
tells how many there are. So how late the loop is for something that is due shows how long calls wait.
"""

from __future__ import annotations

import asyncio

from services.router.gate import Gate
from services.router.refusal_rate import RefusalRate
from shashin.metrics import admission as metrics
from shashin.runtime.scope import Loop, LoopScope

_EVERY_SECONDS = 0.05


class WaitProbe:
    """Tells a gate how long calls wait."""

    def __init__(self, gate: Gate, rate: RefusalRate) -> None:
        self._gate = gate
        self._rate = rate
        self._seen = 0
        """Calls that had come when it looked last."""

    def loop(self) -> Loop:
        """Return the loop; it observes nothing while no calls come."""
        return Loop("wait probe", self._run)

    async def _run(self, loop: LoopScope) -> None:
        clock = asyncio.get_running_loop().time
        due = clock()
        while loop.next_turn():
            waited = max(0.0, clock() - due)
            self._look(waited)
            due = clock() + _EVERY_SECONDS
            await loop.sleep(_EVERY_SECONDS)

    def _look(self, waited: float) -> None:
        calls = self._gate.calls
        if calls == self._seen:
            waited = 0.0
        else:
            metrics.WAIT_SECONDS.observe(waited)
        self._seen = calls
        self._rate.update(waited)
