"""More indexers of the same partitions: one with its clock ahead, one that writes other bytes."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from shashin.local.ports import free_port
from shashin.local.processes import read_plan

ROOT = Path(__file__).parents[2]
CLOCK_AHEAD_SECONDS = 300

_RESTART_SECONDS = 1.0
_STOP_SECONDS = 20.0

ODD: dict[str, Sequence[str]] = {
    "indexer-clock-ahead": ("--clock-ahead", str(CLOCK_AHEAD_SECONDS)),
    "indexer-other-bytes": ("--other-bytes",),
}


async def run_replicas(state: Path) -> None:
    """Run them beside the system in a state folder, and restart each when it dies, until cancelled.

    They share the indexer's failpoints, so that each may be the one that dies.
    """
    await asyncio.gather(*(_keep_running(state, name, flags) for name, flags in ODD.items()))


async def _keep_running(state: Path, name: str, flags: Sequence[str]) -> None:
    plan = read_plan(state)
    assert plan is not None
    spec = next(spec for spec in plan.processes if spec.name == "indexer")
    environment = {
        **os.environ,
        **spec.env,
        "SHASHIN_HTTP_PORT": str(free_port()),
        "SHASHIN_GRPC_PORT": str(free_port()),
        "SHASHIN_WORK_FOLDER": str(state / "work" / name),
        "SHASHIN_HIDDEN_FOLDER": str(state / "work" / f"{name}-hidden"),
    }
    with (state / "logs" / f"{name}.log").open("ab") as log:
        while True:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.chaos.odd_indexer",
                *flags,
                env=environment,
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
            try:
                await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                    await asyncio.wait_for(process.wait(), _STOP_SECONDS)
            await asyncio.sleep(_RESTART_SECONDS)
