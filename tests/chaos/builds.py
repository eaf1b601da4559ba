"""Shards that are merged meanwhile, by runners that are killed now and then."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from shashin.builds.records import BuildRecords
from tests.support.shashin_command import COMMAND

_FAN_IN = 2
"""Shards that are merged at once."""

_PAUSE_SECONDS = 3.0
_KILLED_SHARE = 0.4
"""Part of the runs that are killed soon, unless they have ended before."""
_KILLED_AFTER_SECONDS = (1.0, 10.0)
"""From its start, or from the first success of a run that may have one: it goes on while shards are sealed."""
_LOOK_SECONDS = 1.0


class Builds:
    """Plans and runs builds over and over, retries those that failed, and counts what succeeded."""

    def __init__(self, state: Path, *, seed: int, on_progress: Callable[[int], None]) -> None:
        self._state = state
        self._dice = random.Random(seed)
        self._records = BuildRecords(state)
        self._on_progress = on_progress
        self.succeeded = 0
        self.killed = 0

    async def run(self) -> None:
        """Merge until cancelled."""
        while True:
            await self._shashin("plan", "--run", "--fan-in", str(_FAN_IN))
            for name, phase in self._count().items():
                if phase == "Failed":
                    await self._shashin("retry", name)
            await asyncio.sleep(_PAUSE_SECONDS)

    def _count(self) -> Mapping[str, str]:
        """Count what has succeeded; returns the phase of each build."""
        phases = {one.build.name: one.status.phase for one in self._records.read_all()[0]}
        self.succeeded = sum(phase == "Succeeded" for phase in phases.values())
        self._on_progress(self.succeeded)
        return phases

    async def _shashin(self, *arguments: str) -> None:
        pause = self._dice.uniform(*_KILLED_AFTER_SECONDS)
        kill_at = time.monotonic() + pause if self._dice.random() < _KILLED_SHARE else None
        before = self.succeeded
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
            while not await _has_ended(process):
                self._count()
                now = time.monotonic()
                if kill_at is None and self.succeeded > before:
                    kill_at = now + pause
                if kill_at is not None and now >= kill_at:
                    self.killed += 1
                    return
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _has_ended(process: asyncio.subprocess.Process) -> bool:
    """Wait for a moment; returns whether the process has ended."""
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), _LOOK_SECONDS)
    return process.returncode is not None
