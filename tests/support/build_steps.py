"""Built-in steps for tests: each writes a file that contains those of the steps before it.

There are two kinds: *quick* steps are shell scripts, and the *real* ones are run by
``shashin.builds.step``, in place of which this module is run. A folder of hooks lets a test see and
steer both.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shashin.builds import step as built_in
from shashin.builds.document import BUILT_IN_STEPS
from shashin.builds.step import StepContext
from shashin.errors import UserError

HOOKS = "TEST_BUILD_HOOKS"
REAL_STEPS = "TEST_BUILD_REAL_STEPS"

_QUICK = """
set -eu
hooks=$TEST_BUILD_HOOKS out=$SHASHIN_STEP_OUT
echo $0 >> $hooks/runs
test -z "$(ls -A $out)"
printf half > $out/rows.txt
echo '{"done": 1, "total": 2, "unit": "rows"}' > $SHASHIN_STEP_PROGRESS
echo "$0 works"
if test -e $hooks/$0.wait; then
    echo $$ > $hooks/.$0 && mv $hooks/.$0 $hooks/$0.waiting
    while test -e $hooks/$0.wait; do sleep 0.02; done
    rm $hooks/$0.waiting
fi
if test -e $hooks/$0.fails; then
    echo "$0 cannot work: do something about it" > $SHASHIN_STEP_REASON
    exit 1
fi
{ test -z "$1" || cat $out/../$1/rows.txt; echo $0; } > $out/rows.txt
echo '{"done": 2, "total": 2, "unit": "rows"}' > $SHASHIN_STEP_PROGRESS
"""


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
        return int(path.read_text()) if path.exists() else None

    def forget_waiting(self, step: str) -> None:
        """Forget a step that was killed while it waited, and let the next one continue."""
        (self.folder / f"{step}.waiting").unlink()
        self.let_go(step)

    def fail(self, step: str, how: str = "fails") -> None:
        """Let a step fail with a known error or, if it is a real one, crash (``crashes``)."""
        (self.folder / f"{step}.{how}").touch()

    def repair(self, step: str) -> None:
        """Let it succeed again."""
        for how in ("fails", "crashes"):
            (self.folder / f"{step}.{how}").unlink(missing_ok=True)

    def runs(self) -> list[str]:
        """Return which steps have begun since this was last called, in order."""
        path = self.folder / "runs"
        found = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return found


async def run(step: StepContext) -> None:
    """Run any of the real steps."""
    folder = Path(os.environ[HOOKS])
    with (folder / "runs").open("a") as runs:
        runs.write(f"{step.name}\n")
    assert not list(step.out.iterdir())
    names = [one.name for one in step.build.spec.pipeline]
    before = names[: names.index(step.name)][-1:]
    rows = step.out / "rows.txt"
    rows.write_text("half")
    step.progress(1, 2)
    step.log.info("works", before=before)
    await _held(folder, step.name)
    if (folder / f"{step.name}.fails").exists():
        raise UserError(f"{step.name} cannot work: do something about it")
    if (folder / f"{step.name}.crashes").exists():
        raise ZeroDivisionError("in a test")
    made = [(step.output_of(name) / "rows.txt").read_text() for name in before]
    rows.write_text("".join([*made, f"{step.name}\n"]))
    step.progress(2, 2)


async def _held(folder: Path, name: str) -> None:
    wait, waiting = folder / f"{name}.wait", folder / f"{name}.waiting"
    if not wait.exists():
        return
    beside = folder / f".{name}"
    beside.write_text(str(os.getpid()))
    beside.rename(waiting)
    while wait.exists():  # noqa: ASYNC110 - another process deletes it
        await asyncio.sleep(0.02)
    waiting.unlink()


def real_step(name: str) -> list[str]:
    """Return the command that runs a real step."""
    return [sys.executable, "-P", "-m", "tests.support.build_steps", name]


def quick_step(name: str) -> list[str]:
    """Return the command that runs a quick step."""
    number = BUILT_IN_STEPS.index(name)
    return ["sh", "-c", _QUICK, name, BUILT_IN_STEPS[number - 1] if number else ""]


def steps_of_environment() -> Callable[[str], list[str]]:
    """Return how to run the kind of steps that the environment asks for."""
    return real_step if os.environ.get(REAL_STEPS) else quick_step


if __name__ == "__main__":
    for each in BUILT_IN_STEPS:
        built_in.STEPS[each] = "tests.support.build_steps:run"
    built_in.main()
