"""Killing every service at each of its failpoints."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

from shashin.runtime.failpoints import POINTS

_PATIENCE_SECONDS = 45.0
"""After which a failpoint that no process reaches is postponed."""

_PAUSE_SECONDS = 0.2


class Killer:
    """Arms one failpoint per service at a time, and counts the kills.

    No failpoint is armed a second time as long as another one might miss its first.
    """

    def __init__(self, folder: Path, *, kills: int, seed: int, on_kill: Callable[[], None]) -> None:
        self._folder = folder
        self._target = kills
        self._dice = random.Random(seed)
        self._on_kill = on_kill
        self._armed: set[str] = set()
        self.killed: list[str] = []

    @property
    def done(self) -> bool:
        """Whether all kills are done."""
        return len(self.killed) >= self._target

    @property
    def never(self) -> list[str]:
        """Failpoints at which nothing was killed."""
        every = {f"{service}.{point}" for service, points in POINTS.items() for point in points}
        return sorted(every - set(self.killed))

    async def run(self) -> None:
        """Kill until all kills are done, or until cancelled."""
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
        remaining = self._target - len(self.killed) - len(self._armed)
        due = set(self.never) - self._armed
        return remaining > 0 and (name in due or remaining > len(due))

    async def _kill(self, name: str) -> bool:
        """Arm a failpoint until a process reaches it; False on timeout."""
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
        self._on_kill()
        return True
