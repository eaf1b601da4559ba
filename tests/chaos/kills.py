"""Killing every service at each of its failpoints, each service on its own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

from shashin.service.failpoints import POINTS

_PATIENCE_SECONDS = 45.0
"""After which a point that nobody passes is left for later."""


class Killer:
    """Arms one failpoint of each service at a time, and counts those that were passed."""

    def __init__(self, folder: Path, *, kills: int, seed: int, tell: Callable[[str], None]) -> None:
        self._folder = folder
        self._wanted = kills
        self._dice = random.Random(seed)
        self._tell = tell
        self.killed: list[str] = []
        self.missed: list[str] = []
        self._armed = 0

    @property
    def done(self) -> bool:
        """Whether so many were killed as were wanted."""
        return len(self.killed) >= self._wanted

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
        while not self.done:
            points = list(POINTS[service])
            self._dice.shuffle(points)
            for point in points:
                # What is armed will be a kill: no more of them than are wanted.
                if len(self.killed) + self._armed >= self._wanted:
                    await asyncio.sleep(0.2)
                    if self.done:
                        return
                    continue
                await self._kill(f"{service}.{point}")

    async def _kill(self, name: str) -> None:
        armed = self._folder / name
        armed.touch()
        self._armed += 1
        try:
            deadline = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
            while armed.exists():
                if asyncio.get_running_loop().time() > deadline:
                    armed.unlink(missing_ok=True)
                    self.missed.append(name)
                    return
                await asyncio.sleep(0.05)
        finally:
            self._armed -= 1
        self.killed.append(name)
        self._tell(f"kill {len(self.killed)}: {name}")
