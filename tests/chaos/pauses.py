"""Services that hang: each is stopped with SIGSTOP for 40 seconds, one after another."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from functools import partial

from shashin.local.system import System
from tests.support.waiting import until

PAUSE_SECONDS = 40.0

SERVICES = ("index-server-hourly", "indexer", "downloader", "router", "embedder", "image-builder")


async def pause_each(system: System, names: Sequence[str], on_pause: Callable[[str], None]) -> None:
    """Stop each service once, and let it continue, if its supervisor has not replaced it by then."""
    for name in names:
        pid: int = await until(partial(_pid_of, system, name), f"{name} runs")
        if not _signal(pid, signal.SIGSTOP):
            continue
        try:
            await asyncio.sleep(PAUSE_SECONDS)
        finally:
            _signal(pid, signal.SIGCONT)
        on_pause(name)


def _pid_of(system: System, name: str) -> int | None:
    return system.pids().get(name)


def _signal(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
