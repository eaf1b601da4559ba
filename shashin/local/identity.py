"""Which process a recorded pid means: a pid is used again, so its birth is recorded beside it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class ProcessIdentity:
    """One process, told apart from any later one with the same pid."""

    pid: int
    create_time: float
    """When it was started, in seconds since the epoch: for people."""
    birth: str
    """What it is recognised by. The wall clock can be set back or forth, this cannot change."""

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """Return the identity of a process that runs now; None when none does."""
        try:
            process = psutil.Process(pid)
            # A dead process that nobody has reaped holds its pid, and does nothing more.
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            return cls(pid, process.create_time(), _birth(process))
        except (psutil.Error, OSError, ValueError):
            return None

    @classmethod
    def from_document(cls, document: Any) -> ProcessIdentity | None:
        """Read what ``document()`` wrote; None when it is something else."""
        try:
            return cls(int(document["pid"]), float(document["create_time"]), str(document["birth"]))
        except (KeyError, TypeError, ValueError):
            return None

    def document(self) -> dict[str, Any]:
        """Return this as JSON holds it."""
        return {"pid": self.pid, "create_time": self.create_time, "birth": self.birth}

    def is_running(self) -> bool:
        """Say whether this very process still runs."""
        now = ProcessIdentity.of(self.pid)
        return now is not None and now.birth == self.birth

    def send(self, number: int, *, group: bool = False) -> None:
        """Send a signal to this process, or to its process group; nothing when it is gone."""
        if self.is_running():
            with suppress(ProcessLookupError):
                if group and os.getpgid(self.pid) == self.pid:
                    os.killpg(self.pid, number)
                else:
                    os.kill(self.pid, number)

    async def gone(self, within: float) -> bool:
        """Wait until the process is gone; False when it still runs after that many seconds."""
        deadline = time.monotonic() + within
        while self.is_running():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_POLL_SECONDS)
        return True

    async def end(self, *, grace: float, group: bool = False) -> None:
        """Ask the process to end by SIGTERM, and kill it when ``grace`` seconds were not enough."""
        self.send(signal.SIGTERM, group=group)
        if not await self.gone(grace):
            self.send(signal.SIGKILL, group=group)
            await self.gone(grace)


def _birth(process: psutil.Process) -> str:
    if sys.platform != "linux":
        return repr(process.create_time())
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    # The command name in parentheses may itself hold parentheses and spaces.
    after_name = Path(f"/proc/{process.pid}/stat").read_bytes().rpartition(b")")[2]
    return f"{boot}/{after_name.split()[19].decode()}"


@dataclass(frozen=True)
class Memory:
    """What a process and the processes that it started hold, in bytes."""

    rss: int
    peak: int
    """Greatest resident size so far; this moment's where the system keeps no peak."""


def memory_of(pid: int, *, with_children: bool = True) -> Memory:
    """Return the memory of a process, with all its descendants or alone; zeros when it is gone."""
    rss = peak = 0
    for process in _family(pid, with_children=with_children):
        with suppress(psutil.Error, OSError):
            now = int(process.memory_info().rss)
            rss += now
            peak += max(now, _high_water(process.pid))
    return Memory(rss, peak)


def _family(pid: int, *, with_children: bool) -> Iterator[psutil.Process]:
    with suppress(psutil.Error):
        leader = psutil.Process(pid)
        yield leader
        if with_children:
            yield from leader.children(recursive=True)


def _high_water(pid: int) -> int:
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
