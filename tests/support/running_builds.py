"""Builds that are run by processes of the command, in a state folder of their own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from shashin.builds.document import IndexBuild
from shashin.builds.records import BuildRecord, BuildRecords
from shashin.builds.runner import RunOptions, retry_build
from shashin.builds.status import BuildStatus
from shashin.repository.pointer import pointer_key
from tests.support.build_steps import REAL_STEPS, Hooks, quick_step
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
        pointer = self.state / "repository" / pointer_key("demo-v1", "hourly")
        pointer.parent.mkdir(parents=True)
        pointer.touch()
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

    async def retry(self) -> BuildStatus:
        """Retry the build in this process, with quick steps."""
        return await retry_build(
            self.record,
            RunOptions(
                environment={**os.environ, **self.hooks.environment}, built_in_step=quick_step
            ),
        )

    @asynccontextmanager
    async def started(self, *arguments: object) -> AsyncIterator[asyncio.subprocess.Process]:
        """Start ``shashin builds``, and kill it in the end; without arguments: only a runner."""
        runner = ("tests.support.build_runner", self.state, self.file)
        program = (*_PROGRAM[2:], "builds", *arguments) if arguments else runner
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *map(str, program),
            env={**os.environ, **self._env, "SHASHIN_STATE": str(self.state)},
            cwd=self.state.parent,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    @asynccontextmanager
    async def started_until(
        self, step: str, *arguments: object
    ) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
        """As ``started``, until a step waits; also yields the pid of the step."""
        self.hooks.hold(step)
        async with self.started(*arguments) as process:
            yield process, await self.until_it_waits(step)

    async def until_it_waits(self, step: str) -> int:
        """Wait until a step that is held has begun; returns its pid."""
        pid: int = await until(lambda: self.hooks.waiting(step), f"step {step} waits")
        return pid
