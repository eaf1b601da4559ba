"""Built-in steps for tests: each writes a small file that depends on those of the steps before it.

Run as a module in place of ``shashin.builds.step``. A folder of hooks, named by an environment
variable, lets a test see and steer each step: ``<step>.wait`` holds it until the file is gone,
``<step>.fails`` and ``<step>.crashes`` end it, ``runs`` has a line for each run.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from shashin.builds import step as built_in
from shashin.builds.document import BUILT_IN_STEPS
from shashin.builds.step import StepContext
from shashin.errors import UserError

HOOKS = "TEST_BUILD_HOOKS"


@dataclass(frozen=True)
class Hooks:
    """The folder of hooks, as a test sees it."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a runner passes to its steps."""
        return {HOOKS: str(self.folder)}

    def hold(self, step: str) -> None:
        """Let a step wait when it has written half of its output."""
        (self.folder / f"{step}.wait").touch()

    def let_go(self, step: str) -> None:
        """Let it continue."""
        (self.folder / f"{step}.wait").unlink(missing_ok=True)

    def waiting(self, step: str) -> int | None:
        """Return the pid of a step that waits; None if it does not."""
        path = self.folder / f"{step}.waiting"
        return int(path.read_text() or 0) if path.exists() else None

    def fail(self, step: str, how: str = "fails") -> None:
        """Let a step fail with an error, or crash (``how="crashes"``)."""
        (self.folder / f"{step}.{how}").touch()

    def mend(self, step: str) -> None:
        """Let it succeed again."""
        for how in ("fails", "crashes"):
            (self.folder / f"{step}.{how}").unlink(missing_ok=True)

    def runs(self) -> list[str]:
        """Return which steps have begun since this was last called, in order."""
        path = self.folder / "runs"
        try:
            return path.read_text().split()
        finally:
            path.write_text("")


async def run(step: StepContext) -> None:
    """Run any of the steps."""
    folder = Path(os.environ[HOOKS])
    with (folder / "runs").open("a") as runs:
        runs.write(f"{step.name}\n")
    assert not list(step.out.iterdir())
    names = [one.name for one in step.build.spec.pipeline]
    before = names[: names.index(step.name)]
    made = [(step.output_of(name) / "made" / "rows.txt").read_text() for name in before[-1:]]
    (step.out / "made").mkdir()
    rows = step.out / "made" / "rows.txt"
    rows.write_text("half")
    step.progress(1, 2)
    step.log.info("working", before=before)
    await _held(folder, step.name)
    if (folder / f"{step.name}.fails").exists():
        raise UserError(f"{step.name} cannot work: do something about it")
    if (folder / f"{step.name}.crashes").exists():
        raise ZeroDivisionError("of a test")
    rows.write_text("".join([*made, f"{step.name} of {step.build.spec.minimum_recall}\n"]))
    step.progress(2, 2)


async def _held(folder: Path, name: str) -> None:
    wait, waiting = folder / f"{name}.wait", folder / f"{name}.waiting"
    if not wait.exists():
        return
    beside = folder / f".{name}.waiting"
    beside.write_text(str(os.getpid()))
    beside.rename(waiting)
    try:
        while wait.exists():  # noqa: ASYNC110 - another process deletes it
            await asyncio.sleep(0.02)
    finally:
        waiting.unlink()


def command_of(name: str) -> list[str]:
    """Return the command that runs a step."""
    return [sys.executable, "-P", "-m", __spec__.name, name]


if __name__ == "__main__":
    for each in BUILT_IN_STEPS:
        built_in.STEPS[each] = "tests.support.build_steps:run"
    built_in.main()
