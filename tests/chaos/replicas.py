"""More indexers of the same partitions: one with its clock ahead, one that writes other bytes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from shashin.local.ports import free_port
from shashin.local.processes import read_plan
from shashin.local.system import System
from tests.chaos.metrics import Counted

ROOT = Path(__file__).parents[2]
CLOCK_AHEAD_SECONDS = 300

_RESTART_SECONDS = 1.0
_STOP_SECONDS = 20.0
_LOOK_SECONDS = 0.5

ODD: dict[str, Sequence[str]] = {
    "indexer-clock-ahead": ("--clock-ahead", str(CLOCK_AHEAD_SECONDS)),
    "indexer-other-bytes": ("--other-bytes",),
}

_SEALED = "shashin_indexer_sealed_shards_total"
_DIFFERENTLY = "shashin_indexer_sealed_differently_total"


class Replicas:
    """Runs them beside a system, and counts what its indexers and these did.

    They share the indexer's failpoints, so that each may be the one that dies.
    """

    def __init__(self, system: System) -> None:
        self._system = system
        self._counted = Counted(label="what")
        self.ended: dict[str, list[int]] = {name: [] for name in ODD}
        """Exit codes of those that ended otherwise than by SIGKILL."""

    @property
    def sealed(self) -> Counter[str]:
        """Number of shards that each of them sealed, first or after another."""
        return Counter({name: self._counted.total(_SEALED, of=name) for name in ODD})

    @property
    def sealed_differently(self) -> Counter[str]:
        """Number of shards that an indexer sealed otherwise than another, by what differs."""
        return Counter(
            {
                what: self._counted.total(_DIFFERENTLY, label=what)
                for what in ("index", "rows", "range")
            }
        )

    async def run(self) -> None:
        """Restart each when it dies, until cancelled."""
        await asyncio.gather(
            self._look_at_the_own(),
            *(self._keep_running(name, flags) for name, flags in ODD.items()),
        )

    async def _look_at_the_own(self) -> None:
        while True:
            for row in self._system.processes():
                if row.name == "indexer" and row.pid is not None:
                    await self._counted.look(row.name, row.pid, row.addresses["http"])
            await asyncio.sleep(_LOOK_SECONDS)

    async def _keep_running(self, name: str, flags: Sequence[str]) -> None:
        state = self._system.folder
        plan = read_plan(state)
        assert plan is not None
        spec = next(spec for spec in plan.processes if spec.name == "indexer")
        http_port = free_port()
        environment = {
            **os.environ,
            **spec.env,
            "SHASHIN_HTTP_PORT": str(http_port),
            "SHASHIN_GRPC_PORT": str(free_port()),
            "SHASHIN_WORK_FOLDER": str(state / "work" / name),
            "SHASHIN_HIDDEN_FOLDER": str(state / "work" / f"{name}-hidden"),
        }
        address = f"{spec.env['SHASHIN_HTTP_HOST']}:{http_port}"
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
                    while process.returncode is None:
                        await self._counted.look(name, process.pid, address)
                        await asyncio.sleep(_LOOK_SECONDS)
                finally:
                    if process.returncode is None:
                        process.kill()
                        await asyncio.wait_for(process.wait(), _STOP_SECONDS)
                if process.returncode != -signal.SIGKILL:
                    self.ended[name].append(process.returncode)
                await asyncio.sleep(_RESTART_SECONDS)
