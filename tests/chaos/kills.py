"""Killing every service at each of its failpoints, each service on its own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

from shashin.runtime.failpoints import POINTS

_PATIENCE_SECONDS = 45.0
"""After which a point that nobody passes is left for later."""

_PAUSE_SECONDS = 0.2


class Killer:
    """Arms one failpoint of each service at a time, and counts those that were passed.

    No failpoint is armed a second time while that could keep another one from its first.
    """

    def __init__(self, folder: Path, *, kills: int, seed: int, tell: Callable[[], None]) -> None:
        self._folder = folder
        self._wanted = kills
        self._dice = random.Random(seed)
        self._tell = tell
        self._armed: set[str] = set()
        self.killed: list[str] = []

    @property
    def done(self) -> bool:
        """Whether so many were killed as were wanted."""
        return len(self.killed) >= self._wanted

    @property
    def never(self) -> list[str]:
        """Failpoints at which nothing was killed."""
        every = {f"{service}.{point}" for service, points in POINTS.items() for point in points}
        return sorted(every - set(self.killed))

    async def run(self) -> None:
        """Kill until so many are dead as were wanted, or until cancelled."""
        self._folder.mkdir(parents=True, exist_ok=True)
        lanes = [asyncio.ensure_future(self._lane(service)) for service in POINTS]
        try:
            await asyncio.gather(*lanes)
        finally:
            for lane in lanes:
                lane.cancel()
            for armed in self._folder.iterdir():
                armed.unlink(missing_ok=True)

    async def _lane(self, service: str) -> None:
        waiting: list[str] = []
        while not self.done:
            if not waiting:
                waiting = [f"{service}.{point}" for point in POINTS[service]]
                self._dice.shuffle(waiting)
            name = waiting.pop(0)
            if not self._may_arm(name):
                await asyncio.sleep(_PAUSE_SECONDS)
            elif not await self._kill(name):
                waiting.append(name)

    def _may_arm(self, name: str) -> bool:
        room = self._wanted - len(self.killed) - len(self._armed)
        due = set(self.never) - self._armed
        return room > 0 and (name in due or room > len(due))

    async def _kill(self, name: str) -> bool:
        """Arm a failpoint until somebody passes it; False when nobody does for long."""
        armed = self._folder / name
        armed.touch()
        self._armed.add(name)
        try:
            deadline = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
            while armed.exists():
                if asyncio.get_running_loop().time() > deadline:
                    armed.unlink(missing_ok=True)
                    return False
                await asyncio.sleep(0.05)
        finally:
            self._armed.discard(name)
        self.killed.append(name)
        self._tell()
        return True
