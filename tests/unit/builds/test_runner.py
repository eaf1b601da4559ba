"""Running a build: what is kept, what runs again, and how steps end."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from shashin.builds.document import BUILT_IN_STEPS, IndexBuild
from shashin.builds.records import BuildRecord, BuildRecords
from shashin.builds.runner import (
    ASKED_TO_STOP,
    INTERRUPTED,
    RunOptions,
    cancel_build,
    remove_build,
    retry_build,
    run_build,
)
from shashin.builds.status import RUNNER_DIED, BuildStatus, StepStatus
from shashin.errors import BuildNotFound, BuildRunning, DiskUnavailable, UnreadableBuild
from tests.support.build_steps import Hooks, quick_step
from tests.support.made_builds import made_build
from tests.support.small_disk import mounted_disk
from tests.support.waiting import until

ALL = list(BUILT_IN_STEPS)


def own(command: str, name: str = "check", **step: Any) -> dict[str, Any]:
    """Return a step of the user's own, a shell script."""
    return {"name": name, "command": ["sh", "-c", command], **step}


class Builds:
    """One build that this process runs."""

    def __init__(self, folder: Path) -> None:
        self.hooks = Hooks(folder / "hooks")
        self.hooks.folder.mkdir()
        self.record: BuildRecord = BuildRecords(folder / "state").record("demo-daily")
        self.folder = folder / "home"
        self.folder.mkdir()
        self.seen: list[BuildStatus] = []
        self.options = RunOptions(
            environment={**os.environ, **self.hooks.environment},
            on_status=self.seen.append,
            built_in_step=quick_step,
            stop_seconds=5,
        )

    async def run(self, build: IndexBuild, repository: str = "file:///shards") -> BuildStatus:
        return await run_build(
            self.record,
            build,
            repository=repository,
            command_folder=self.folder,
            options=self.options,
        )

    async def retry(self) -> BuildStatus:
        return await retry_build(self.record, self.options)

    def step(self, name: str) -> StepStatus:
        (found,) = [one for one in self.record.read().status.steps if one.name == name]
        return found

    def log(self, name: str, attempt: int = 1) -> str:
        return self.record.log_path(name, attempt).read_text()


@pytest.fixture
def builds(tmp_path: Path) -> Builds:
    return Builds(tmp_path)


async def test_a_build_runs_its_steps_in_order_each_from_the_output_of_those_before(
    builds: Builds,
) -> None:
    status = await builds.run(made_build())
    assert (status.phase, status.attempts, status.pid) == ("Succeeded", 1, os.getpid())
    assert builds.hooks.runs() == ALL
    assert (builds.record.outputs / "publish" / "rows.txt").read_text().split() == ALL
    assert builds.log("fetch") == "fetch works\n"
    for step in status.steps:
        assert (step.phase, step.exit_code, step.attempt) == ("Succeeded", 0, 1)
        assert step.progress is not None
        assert (step.progress.done, step.progress.total) == (2, 2)
        assert [file.path for file in step.outputs] == ["rows.txt"]
    assert builds.record.read().status == status
    phases = [one.phase for one in builds.seen]
    assert (phases[0], phases[-1]) == ("Running", "Succeeded")


async def test_running_it_again_runs_nothing(builds: Builds) -> None:
    await builds.run(made_build())
    builds.hooks.runs()
    for again in (await builds.run(made_build()), await builds.retry()):
        assert again.phase == "Succeeded"
        assert all(map(again.kept, again.steps))
    assert builds.hooks.runs() == []


async def test_a_command_of_the_users_own_gets_what_a_step_gets(builds: Builds) -> None:
    (builds.folder / "check.py").write_text(
        "import json, os, pathlib, sys\n"
        "import shashin\n"
        "build = json.load(open(os.environ['SHASHIN_BUILD']))\n"
        "out = pathlib.Path(os.environ['SHASHIN_STEP_OUT'])\n"
        "assert not list(out.iterdir())\n"
        "pathlib.Path(os.environ['SHASHIN_BUILD_WORK'], 'cache').touch()\n"
        "rows = (out.parent / 'fetch' / 'rows.txt').read_text()\n"
        "(out / 'report.txt').write_text(rows + build['spec']['model'])\n"
        "print(os.environ['SHASHIN_REPOSITORY'], sys.argv[1:])\n"
    )
    check = {"name": "check", "command": ["python", "check.py", "an argument"]}
    status = await builds.run(made_build(check, after="fetch"))
    assert status.phase == "Succeeded"
    assert builds.log("check") == "file:///shards ['an argument']\n"
    report = builds.record.outputs / "check" / "report.txt"
    assert report.read_text() == "select\nfetch\ndemo-v1"
    assert (builds.record.work / "cache").exists()


async def test_a_failed_step_is_retried_and_those_before_it_are_kept(builds: Builds) -> None:
    builds.hooks.fail("embed")
    status = await builds.run(made_build())
    assert (status.phase, status.reason) == (
        "Failed",
        "embed cannot work: do something about it",
    )
    assert builds.hooks.runs() == ALL[:3]
    failed = builds.step("embed")
    assert (failed.phase, failed.exit_code, failed.outputs) == ("Failed", 1, ())
    builds.hooks.repair("embed")
    status = await builds.retry()
    assert (status.phase, status.attempts) == ("Succeeded", 2)
    assert builds.hooks.runs() == ALL[2:]
    assert [step.attempt for step in status.steps] == [1, 1, 2, 2, 2]
    assert builds.log("embed", 2) == builds.log("embed", 1)


@pytest.mark.parametrize(
    ("command", "exit_code", "reason"),
    [
        ("exit 3", 3, "exit code 3"),
        ("kill -9 $$", 137, "ended by SIGKILL"),
        ("kill -64 $$", 192, "ended by SIGRTMAX"),
        ("ln -s /etc $SHASHIN_STEP_OUT/link", 0, "link is neither a file nor a folder"),
        ("rmdir $SHASHIN_STEP_OUT; ln -s /etc $SHASHIN_STEP_OUT", 0, "is a link: expected the folder"),
    ],
)  # fmt: skip
async def test_how_a_command_ended_is_recorded(
    command: str, exit_code: int, reason: str, builds: Builds
) -> None:
    status = await builds.run(made_build(own(command)))
    assert status.phase == "Failed"
    assert reason in status.reason
    step = builds.step("check")
    assert (step.phase, step.exit_code, step.reason) == ("Failed", exit_code, status.reason)
    status = await builds.run(made_build(own("true")))
    assert status.phase == "Succeeded", "whatever it left in place of its folder"


async def test_a_command_that_cannot_be_started_is_named(builds: Builds) -> None:
    check = {"name": "check", "command": ["no-such-program"]}
    status = await builds.run(made_build(check))
    assert (status.phase, status.reason) == (
        "Failed",
        "no-such-program cannot be started: no such file or directory",
    )


async def test_an_output_folder_that_is_gone_fails_the_build_and_not_the_runner(
    builds: Builds,
) -> None:
    status = await builds.run(made_build(own("rmdir $SHASHIN_STEP_OUT")))
    assert status.phase == "Failed"
    assert status.reason.endswith("outputs/check: no such file or directory")


@pytest.mark.parametrize("change", ["changed", "truncated", "removed", "added", "folder"])
async def test_an_output_that_is_no_longer_what_it_was_is_made_again(
    change: str, builds: Builds
) -> None:
    await builds.run(made_build())
    builds.hooks.runs()
    folder = builds.record.outputs / "fetch"
    rows = folder / "rows.txt"
    if change == "changed":
        rows.write_bytes(rows.read_bytes().swapcase())
    elif change == "truncated":
        rows.write_bytes(rows.read_bytes()[:-1])
    elif change == "removed":
        rows.unlink()
    elif change == "added":
        (folder / "more").touch()
    else:
        shutil.rmtree(folder)
    status = await builds.retry()
    assert status.phase == "Succeeded"
    assert builds.hooks.runs() == ALL[1:]
    assert builds.log("fetch", 2).startswith("runs again: its output changed: ")
    assert (builds.record.outputs / "publish" / "rows.txt").read_text().split() == ALL


async def test_a_change_of_the_document_runs_the_first_affected_step_and_those_after_it(
    builds: Builds,
) -> None:
    await builds.run(made_build())
    builds.hooks.runs()
    assert (await builds.run(made_build(minimumRecall=0.5))).phase == "Succeeded"
    assert builds.hooks.runs() == ["build", "publish"]
    assert (await builds.run(made_build(own("true"), minimumRecall=0.5))).phase == "Succeeded"
    assert builds.hooks.runs() == ALL[1:]
    assert (await builds.run(made_build(minimumRecall=0.5))).phase == "Succeeded"
    assert builds.hooks.runs() == ALL[1:]
    assert not (builds.record.outputs / "check").exists(), (
        "a step that is no longer in the pipeline"
    )
    assert (await builds.run(made_build(), "file:///other")).phase == "Succeeded"
    assert builds.hooks.runs() == ALL


async def test_the_work_folder_is_kept_as_long_as_a_step_is(builds: Builds) -> None:
    check = own("touch $SHASHIN_BUILD_WORK/cache; exit 1")
    await builds.run(made_build(check))
    assert (builds.record.work / "cache").exists()
    await builds.run(made_build(own("test -e $SHASHIN_BUILD_WORK/cache")))
    assert builds.record.read().status.phase == "Succeeded"
    await builds.run(made_build(own("test ! -e $SHASHIN_BUILD_WORK/cache"), tier="monthly"))
    assert builds.record.read().status.phase == "Succeeded"


def processes_with(text: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and text in " ".join(process.cmdline()):
                found.append(process)
    return found


@pytest.fixture
def sleeper() -> Iterator[str]:
    """Return a command that can be told from those of all other tests."""
    command = f"sleep 86400.{int.from_bytes(os.urandom(8))}"
    yield command
    for process in processes_with(command.partition(" ")[2]):
        process.kill()


async def test_a_step_that_takes_too_long_is_ended_with_all_that_it_started(
    builds: Builds, sleeper: str
) -> None:
    command = f"setsid {sleeper} & {sleeper} & {sleeper}"
    status = await builds.run(made_build(own(command, timeoutSeconds=1)))
    assert (status.phase, status.reason) == ("Failed", "it took longer than its timeoutSeconds, 1")
    assert builds.step("check").exit_code == 128 + signal.SIGTERM
    assert processes_with(sleeper.partition(" ")[2]) == []


async def test_a_step_that_ignores_sigterm_is_killed(builds: Builds, sleeper: str) -> None:
    command = f"trap '' TERM; while :; do {sleeper}; done"
    builds.options = RunOptions(
        environment=builds.options.environment, built_in_step=quick_step, stop_seconds=0.2
    )
    status = await builds.run(made_build(own(command, timeoutSeconds=1)))
    assert status.phase == "Failed"
    assert builds.step("check").exit_code == 128 + signal.SIGKILL
    assert processes_with(sleeper.partition(" ")[2]) == []


async def test_what_a_step_leaves_running_ends_with_it(builds: Builds, sleeper: str) -> None:
    status = await builds.run(made_build(own(f"setsid {sleeper} & {sleeper} &")))
    assert status.phase == "Succeeded"
    assert processes_with(sleeper.partition(" ")[2]) == []


@pytest.mark.parametrize("step", ALL)
async def test_a_step_that_is_killed_fails_the_build_and_a_retry_finishes(
    step: str, builds: Builds
) -> None:
    builds.hooks.hold(step)
    running = asyncio.ensure_future(builds.run(made_build()))
    os.kill(await until(lambda: builds.hooks.waiting(step), "the step waits"), signal.SIGKILL)
    status = await running
    assert (status.phase, status.reason) == ("Failed", "ended by SIGKILL")
    builds.hooks.forget_waiting(step)
    builds.hooks.runs()
    assert (await builds.retry()).phase == "Succeeded"
    assert builds.hooks.runs() == ALL[ALL.index(step) :]
    assert (builds.record.outputs / "publish" / "rows.txt").read_text().split() == ALL


class Killed(BaseException):
    """The runner is gone, here: it handles this nowhere."""


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_runner_that_is_gone_at_any_change_of_the_status_leaves_what_a_retry_finishes(
    moment: str, builds: Builds, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, left = BuildRecord.write_status, 0

    def write_and_die(record: BuildRecord, status: BuildStatus) -> None:
        nonlocal left
        left -= 1
        if left == 0 and moment == "before":
            raise Killed
        write(record, status)
        if left == 0:
            raise Killed

    monkeypatch.setattr(BuildRecord, "write_status", write_and_die)
    left = 2  # the first one is that of the new record
    with pytest.raises(Killed):
        await builds.run(made_build())
    for attempt in range(1, 20):
        left = attempt
        try:
            status = await builds.retry()
        except Killed:
            assert builds.record.read().status.phase in {"Pending", "Failed", "Succeeded"}
            continue
        break
    assert (status.phase, builds.record.read().status) == ("Succeeded", status)
    assert (builds.record.outputs / "publish" / "rows.txt").read_text().split() == ALL
    runs = builds.hooks.runs()
    assert [name for number, name in enumerate(runs) if name != runs[number - 1]] == ALL, (
        "a step that has succeeded does not run again"
    )


async def test_a_second_runner_is_refused_while_the_first_goes_on(builds: Builds) -> None:
    builds.hooks.hold("fetch")
    first = asyncio.ensure_future(builds.run(made_build()))
    await until(lambda: builds.hooks.waiting("fetch"), "the step waits")
    for second in (
        builds.run(made_build(tier="monthly")),
        builds.retry(),
        remove_build(builds.record),
    ):
        with pytest.raises(BuildRunning, match="another process runs build demo-daily"):
            await second
    builds.hooks.let_go("fetch")
    assert (await first).phase == "Succeeded"
    assert builds.hooks.runs() == ALL
    assert builds.record.read().build.spec.tier == "daily"


async def test_a_cancelled_build_has_stopped_once_cancel_returns(builds: Builds) -> None:
    builds.hooks.hold("fetch")
    running = asyncio.ensure_future(builds.run(made_build()))
    pid = await until(lambda: builds.hooks.waiting("fetch"), "the step waits")
    cancelled = (await cancel_build(builds.record)).status
    assert (cancelled.phase, cancelled.reason) == ("Cancelled", ASKED_TO_STOP)
    assert not psutil.pid_exists(pid)
    assert (await running).phase == "Cancelled"
    assert [step.phase for step in cancelled.steps][:3] == ["Succeeded", "Cancelled", "Pending"]
    builds.hooks.forget_waiting("fetch")
    builds.hooks.runs()
    assert (await builds.retry()).phase == "Succeeded"
    assert builds.hooks.runs() == ALL[1:]


async def test_a_build_that_has_ended_stays_as_it_is_when_it_is_cancelled(builds: Builds) -> None:
    await builds.run(made_build())
    assert (await cancel_build(builds.record)).status.phase == "Succeeded"


async def test_an_interrupted_runner_ends_its_step_and_says_so(builds: Builds) -> None:
    builds.hooks.hold("embed")
    running = asyncio.ensure_future(builds.run(made_build()))
    pid = await until(lambda: builds.hooks.waiting("embed"), "the step waits")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not psutil.pid_exists(pid)
    status = builds.record.read().status
    assert (status.phase, status.reason) == ("Cancelled", INTERRUPTED)
    assert builds.step("embed").phase == "Cancelled"


async def test_progress_is_shown_while_a_step_runs(builds: Builds) -> None:
    builds.hooks.hold("fetch")
    running = asyncio.ensure_future(builds.run(made_build()))

    def shown() -> bool:
        step = builds.seen[-1].running_step if builds.seen else None
        return step is not None and step.progress is not None and bool(step.per_second)

    await until(shown, "the progress is shown")
    assert builds.step("fetch").progress is not None
    builds.hooks.let_go("fetch")
    await running


async def test_a_removed_build_begins_anew(builds: Builds) -> None:
    await builds.run(made_build())
    builds.hooks.runs()
    await remove_build(builds.record)
    with pytest.raises(BuildNotFound):
        await builds.retry()
    status = await builds.run(made_build())
    assert (status.phase, status.attempts) == ("Succeeded", 1)
    assert builds.hooks.runs() == ALL


async def test_a_record_that_cannot_be_read_is_neither_run_nor_changed_but_can_be_removed(
    builds: Builds,
) -> None:
    await builds.run(made_build())
    builds.record.status_path.write_text("half a f")
    for attempt in (builds.run(made_build()), builds.retry(), cancel_build(builds.record)):
        with pytest.raises(UnreadableBuild, match=r"status\.json is not JSON"):
            await attempt
    assert builds.record.status_path.read_text() == "half a f"
    await remove_build(builds.record)
    assert (await builds.run(made_build())).phase == "Succeeded"


async def test_a_record_reads_well_at_every_moment_of_a_run(builds: Builds) -> None:
    running = asyncio.ensure_future(builds.run(made_build()))
    await until(builds.record.folder.exists, "the record is there")
    seen = set()
    while not running.done():
        status = await asyncio.to_thread(lambda: builds.record.read().status)
        assert status.reason != RUNNER_DIED
        seen.add(status.phase)
        await asyncio.sleep(0)
    assert "Running" in seen
    assert builds.record.read().status == await running


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 256 KiB."""
    with mounted_disk(tmp_path / "disk", kibibytes=256) as folder:
        yield folder


async def test_a_full_disk_fails_the_build_and_a_retry_goes_on_once_there_is_room(
    builds: Builds, small_disk: Path
) -> None:
    builds.record = BuildRecords(small_disk).record("demo-daily")
    filler = small_disk / "filler"
    fills = own(f"cat /dev/zero > {filler}")
    with pytest.raises(DiskUnavailable, match=r"cannot be written: no space left on device"):
        await builds.run(made_build(fills))
    status = builds.record.read().status
    assert (status.phase, status.reason) == ("Failed", RUNNER_DIED)
    assert json.loads(builds.record.status_path.read_bytes())["phase"] == "Running"
    with pytest.raises(DiskUnavailable):
        await builds.retry()
    filler.unlink()
    builds.hooks.runs()
    assert (await builds.run(made_build(own("true")))).phase == "Succeeded"
    assert builds.hooks.runs() == ALL[1:]
