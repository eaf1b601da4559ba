"""Peak memory of each process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

_SAMPLE_SECONDS = 1.0


def peak_of(pid: int) -> int:
    """Return the process's peak resident size in bytes; 0 if it no longer runs.

    On a system that does not record the peak, the current size.
    """
    try:
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


class PeakMemory:
    """Samples processes by name; the peak of a restarted process is the maximum of all runs."""

    def __init__(self, pids: Callable[[], Mapping[str, int]]) -> None:
        self._pids = pids
        self.peaks: dict[str, int] = {}

    def sample(self) -> None:
        """Sample every process once."""
        for name, pid in self._pids().items():
            self.peaks[name] = max(self.peaks.get(name, 0), peak_of(pid))

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Sample every second while the context is open."""

        async def follow() -> None:
            while True:
                self.sample()
                await asyncio.sleep(_SAMPLE_SECONDS)

        task = asyncio.create_task(follow())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            self.sample()
