"""The process of one step, and whatever it starts."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import psutil

from shashin.runtime.parent_death import die_with_parent

RUN = "SHASHIN_BUILD_RUN"
"""Environment variable with the id of the attempt that a process belongs to."""

_POLL_SECONDS = 0.05


class StepProcess:
    """A running step. It dies with this process; its output goes to its log directly."""

    def __init__(self, process: asyncio.subprocess.Process, run: str) -> None:
        self._pid = process.pid
        self._exit = asyncio.ensure_future(process.wait())
        self._run = run

    @classmethod
    async def start(
        cls, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: BinaryIO
    ) -> StepProcess:
        """Start a step; ``env`` has to contain ``RUN``. Start it from the main thread.

        Raises:
            OSError: if it cannot be started.
        """
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            process_group=0,  # Ctrl-C at the terminal reaches only the runner
            preexec_fn=die_with_parent(),
        )
        return cls(process, env[RUN])

    async def exited_within(self, seconds: float) -> int | None:
        """Return its exit code, negative for a signal; None if it still runs after that time."""
        await asyncio.wait({self._exit}, timeout=seconds)
        return self._exit.result() if self._exit.done() else None

    async def end(self, grace: float) -> int:
        """Send SIGTERM to its process group, and SIGKILL to what is left after ``grace`` seconds.

        Returns its exit code, negative for a signal.
        """
        try:
            self._send(signal.SIGTERM)
            await self.exited_within(grace)
        finally:
            self._send(signal.SIGKILL)
            code = await self._exit
            await self.end_descendants()
        return code

    async def end_descendants(self) -> None:
        """Kill whatever the step has started and left behind."""
        self._send(signal.SIGKILL)
        await end_processes_of(self._run)

    def _send(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, number)


async def end_processes_of(run: str) -> int:
    """Kill every process of an attempt, and wait until none is left; returns how many there were.

    They are known by their environment, so also those are found whose parent is gone and who have
    left its process group. One that has cleared its environment is not.
    """
    ended: set[int] = set()
    while found := [process.pid for process in _processes_of(run)]:
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        ended.update(found)
        await asyncio.sleep(_POLL_SECONDS)
    return len(ended)


def _processes_of(run: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                continue
            if process.environ().get(RUN) == run:
                yield process
