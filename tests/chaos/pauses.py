"""Services that hang: each is stopped with SIGSTOP for 40 seconds."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from functools import partial

from shashin.local.processes import read_plan
from shashin.local.system import System
from tests.support.waiting import until

PAUSE_SECONDS = 40.0


def services_of(system: System) -> list[str]:
    """Return the names of all services of a started system, those of every tier included."""
    plan = read_plan(system.folder)
    assert plan is not None
    return [spec.name for spec in plan.processes]


async def pause_each(
    system: System, names: Sequence[str], on_pause: Callable[[str], None], *, at_once: int
) -> None:
    """Stop each service once, ``at_once`` of them together."""
    for first in range(0, len(names), at_once):
        together = names[first : first + at_once]
        await asyncio.gather(*(_pause(system, name) for name in together))
        for name in together:
            on_pause(name)


async def _pause(system: System, name: str) -> None:
    """Stop a service, and let it continue, if its supervisor has not replaced it by then."""
    stopped = False
    while not stopped:
        pid: int = await until(partial(_pid_of, system, name), f"{name} runs")
        stopped = _signal(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(PAUSE_SECONDS)
    finally:
        _signal(pid, signal.SIGCONT)


def _pid_of(system: System, name: str) -> int | None:
    return system.pids().get(name)


def _signal(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
