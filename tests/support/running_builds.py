"""Builds that are run by processes of the command, in a state folder of their own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shashin.builds.document import IndexBuild
from shashin.builds.records import BuildRecord, BuildRecords
from shashin.builds.status import BuildStatus
from tests.support.build_steps import Hooks
from tests.support.builds_command import REAL_STEPS
from tests.support.shashin_command import Finished, shashin
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
_PROGRAM = (sys.executable, "-m", "tests.support.builds_command")


class RunningBuilds:
    """A state folder, the document of a build, and hooks into its steps."""

    def __init__(self, folder: Path, *, real_steps: bool = False) -> None:
        self.state = folder / "state"
        self.hooks = Hooks(folder / "hooks")
        self.hooks.folder.mkdir()
        self.file = folder / "build.json"
        shard = self.state / "repository/indexes/demo-v1/hourly/0/a-shard"
        shard.mkdir(parents=True)
        (shard / "manifest.json").touch()
        self._env = {
            **self.hooks.environment,
            "PYTHONPATH": str(ROOT),
            **({REAL_STEPS: "1"} if real_steps else {}),
        }

    @property
    def record(self) -> BuildRecord:
        """The record of the build."""
        return BuildRecords(self.state).record("demo-daily")

    @property
    def status(self) -> BuildStatus:
        """Its status, as anyone would read it."""
        return self.record.read().status

    def rows(self, step: str = "publish") -> list[str]:
        """Return what a step's output contains: the names of all steps up to it."""
        return (self.record.outputs / step / "rows.txt").read_text().split()

    def write(self, build: IndexBuild) -> None:
        """Write the document that ``run`` runs."""
        self.file.write_text(json.dumps(build.document()))

    async def builds(self, *arguments: object, **options: Any) -> Finished:
        """Run ``shashin builds`` to its end, as ``shashin()`` does."""
        return await shashin(
            "builds", *arguments, state=self.state, env=self._env, program=_PROGRAM, **options
        )

    async def start(
        self, *arguments: object, env: Mapping[str, str] | None = None
    ) -> asyncio.subprocess.Process:
        """Start ``shashin builds``; whoever starts it ends it."""
        return await asyncio.create_subprocess_exec(
            *_PROGRAM,
            "builds",
            *map(str, arguments),
            env={**os.environ, **self._env, "SHASHIN_STATE": str(self.state), **(env or {})},
            cwd=self.state.parent,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def until_it_waits(self, step: str) -> int:
        """Wait until a step that is held has begun; returns its pid."""
        pid: int = await until(lambda: self.hooks.waiting(step), f"step {step} waits")
        return pid
