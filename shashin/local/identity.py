"""Identity of a recorded process: pids are reused, so the start time is recorded with the pid."""

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
    """One process, distinguishable from any later one with the same pid."""

    pid: int
    create_time: float
    """Start time in seconds since the epoch, for display."""
    birth: str
    """What identifies it. Unlike the wall clock, this never changes."""

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """Return the identity of a running process; None if there is none with this pid."""
        try:
            process = psutil.Process(pid)
            # A zombie still has its pid but does nothing any more.
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            return cls(pid, process.create_time(), _birth(process))
        except (psutil.Error, OSError, ValueError):
            return None

    @classmethod
    def from_document(cls, document: Any) -> ProcessIdentity | None:
        """Parse what ``document()`` returned; None if it is something else."""
        try:
            return cls(int(document["pid"]), float(document["create_time"]), str(document["birth"]))
        except (KeyError, TypeError, ValueError):
            return None

    def document(self) -> dict[str, Any]:
        """Return this for JSON."""
        return {"pid": self.pid, "create_time": self.create_time, "birth": self.birth}

    def is_running(self) -> bool:
        """Return whether this exact process is still running."""
        now = ProcessIdentity.of(self.pid)
        return now is not None and now.birth == self.birth

    def send(self, number: int, *, group: bool = False) -> None:
        """Send a signal to this process, or to its process group; a no-op if it has exited."""
        if self.is_running():
            with suppress(ProcessLookupError):
                if group and os.getpgid(self.pid) == self.pid:
                    os.killpg(self.pid, number)
                else:
                    os.kill(self.pid, number)

    async def wait_for_exit(self, within: float) -> bool:
        """Wait until the process has exited; False if it still runs after that many seconds."""
        deadline = time.monotonic() + within
        while self.is_running():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_POLL_SECONDS)
        return True

    async def end(self, *, grace: float, group: bool = False) -> None:
        """Send SIGTERM, and SIGKILL if the process has not exited within ``grace`` seconds."""
        self.send(signal.SIGTERM, group=group)
        if not await self.wait_for_exit(grace):
            self.send(signal.SIGKILL, group=group)
            await self.wait_for_exit(grace)


def _birth(process: psutil.Process) -> str:
    if sys.platform != "linux":
        return repr(process.create_time())
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    # The command name in parentheses may itself contain parentheses and spaces.
    after_name = Path(f"/proc/{process.pid}/stat").read_bytes().rpartition(b")")[2]
    return f"{boot}/{after_name.split()[19].decode()}"


@dataclass(frozen=True)
class Memory:
    """Memory of a process and its descendants, in bytes."""

    rss: int
    peak: int
    """Peak resident size; the current size if the system does not record the peak."""


def memory_of(pid: int, *, with_children: bool = True) -> Memory:
    """Return the memory of a process, with or without its descendants; zeros if it has exited."""
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
