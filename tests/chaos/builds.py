"""Shards that are merged meanwhile, by runners that are killed now and then."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path

from shashin.builds.records import BuildRecords
from tests.support.shashin_command import COMMAND

_FAN_IN = 2
"""Shards that are merged at once."""

_PAUSE_SECONDS = 3.0
_KILLED_SHARE = 0.4
"""Part of the runs that are killed, unless they have ended before."""
_KILLED_AFTER_SECONDS = (1.0, 10.0)


class Builds:
    """Plans and runs builds over and over, retries those that failed, and counts what succeeded."""

    def __init__(self, state: Path, *, seed: int, on_progress: Callable[[int], None]) -> None:
        self._state = state
        self._dice = random.Random(seed)
        self._on_progress = on_progress
        self.succeeded = 0
        self.killed = 0

    async def run(self) -> None:
        """Merge until cancelled."""
        records = BuildRecords(self._state)
        while True:
            await self._shashin("plan", "--run", "--fan-in", str(_FAN_IN))
            statuses = {one.build.name: one.status for one in records.read_all()[0]}
            self.succeeded = sum(status.phase == "Succeeded" for status in statuses.values())
            self._on_progress(self.succeeded)
            for name, status in statuses.items():
                if status.phase == "Failed":
                    await self._shashin("retry", name)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _shashin(self, *arguments: str) -> None:
        kill_after = None
        if self._dice.random() < _KILLED_SHARE:
            kill_after = self._dice.uniform(*_KILLED_AFTER_SECONDS)
        with (self._state / "logs" / "builds.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                COMMAND,
                "builds",
                *arguments,
                env={**os.environ, "SHASHIN_STATE": str(self._state)},
                stdout=log,
                stderr=log,
            )
        try:
            await asyncio.wait_for(process.wait(), kill_after)
        except TimeoutError:
            self.killed += 1
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
