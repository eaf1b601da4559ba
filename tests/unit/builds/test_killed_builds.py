"""Processes of a build that are killed, at any step: a retry finishes, and nothing runs twice at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from shashin.builds.document import BUILT_IN_STEPS
from shashin.builds.status import RUNNER_DIED
from tests.support.made_builds import made_build
from tests.support.running_builds import RunningBuilds
from tests.support.waiting import until

ALL = list(BUILT_IN_STEPS)


@pytest.fixture
def builds(tmp_path: Path) -> RunningBuilds:
    running = RunningBuilds(tmp_path)
    running.write(made_build())
    return running


@asynccontextmanager
async def run_until(
    builds: RunningBuilds, step: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """Run the build until a step waits; yields its process and the pid of the step."""
    builds.hooks.hold(step)
    process = await builds.start("run", builds.file)
    try:
        yield process, await builds.until_it_waits(step)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("step", ALL)
async def test_a_runner_that_is_killed_takes_its_step_along_and_a_retry_finishes(
    step: str, builds: RunningBuilds
) -> None:
    async with run_until(builds, step) as (process, pid):
        process.kill()
        await process.wait()
        await until(lambda: not is_running(pid), "the step has died with its runner")
    assert builds.status.reason == RUNNER_DIED
    assert "half" in builds.rows(step)
    builds.hooks.forget_waiting(step)
    builds.hooks.runs()
    finished = await builds.builds("retry", "demo-daily")
    assert "build demo-daily succeeded" in finished.out
    assert builds.hooks.runs() == ALL[ALL.index(step) :]
    assert builds.rows() == ALL


@pytest.mark.parametrize("step", ALL)
async def test_a_step_that_is_killed_fails_the_build_and_a_retry_finishes(
    step: str, builds: RunningBuilds
) -> None:
    async with run_until(builds, step) as (process, pid):
        os.kill(pid, signal.SIGKILL)
        output, _ = await process.communicate()
        assert process.returncode == 1
        assert f"build demo-daily failed at step {step}: ended by SIGKILL" in output.decode()
        assert f"  | {step} works" in output.decode(), "the last lines of its log"
    builds.hooks.forget_waiting(step)
    builds.hooks.runs()
    await builds.builds("retry", "demo-daily")
    assert builds.hooks.runs() == ALL[ALL.index(step) :]
    assert builds.rows() == ALL


async def test_what_a_killed_runner_leaves_behind_is_ended_before_a_retry_begins(
    builds: RunningBuilds,
) -> None:
    # It leaves its process group and its parent, and so does not die with the runner.
    writes = "while :; do echo $$ > $SHASHIN_BUILD_WORK/writer; sleep 0.02; done"
    orphan = {"name": "check", "command": ["sh", "-c", f"setsid sh -c '{writes}' & sleep 86400"]}
    builds.write(made_build(orphan))
    process = await builds.start("run", builds.file)
    written = builds.record.work / "writer"
    pid = await until(lambda: written.exists() and written.read_text(), "it writes")
    process.kill()
    await process.wait()
    assert is_running(int(pid))
    try:
        still = {"name": "check", "command": ["sh", "-c", f"! kill -0 {pid}"]}
        builds.write(made_build(still))
        await builds.builds("run", builds.file)
        assert not is_running(int(pid))
    finally:
        if is_running(int(pid)):
            os.kill(int(pid), signal.SIGKILL)


async def test_a_build_whose_runner_was_killed_can_be_cancelled(builds: RunningBuilds) -> None:
    async with run_until(builds, "fetch") as (process, _):
        process.kill()
        await process.wait()
    finished = await builds.builds("cancel", "demo-daily")
    assert "was cancelled at step fetch" in finished.out
    assert builds.record.read_status().phase == "Cancelled"


async def test_cancel_waits_until_a_running_build_has_stopped(builds: RunningBuilds) -> None:
    async with run_until(builds, "embed") as (process, pid):
        finished = await builds.builds("cancel", "demo-daily")
        assert not is_running(pid)
        assert "was cancelled at step embed: someone cancelled it" in finished.out
        output, _ = await process.communicate()
        assert process.returncode == 1
        assert "build demo-daily was cancelled at step embed" in output.decode()


async def test_two_commands_at_once_run_one_build_once(builds: RunningBuilds) -> None:
    async with run_until(builds, "select") as (process, _):
        for arguments in (("run", builds.file), ("retry", "demo-daily"), ("rm", "demo-daily")):
            refused = await builds.builds(*arguments, ends_with=1)
            assert "another process runs build demo-daily" in refused.error
        listed = (await builds.builds("ls", "--json")).document
        assert [(one["name"], one["phase"]) for one in listed] == [("demo-daily", "Running")]
        builds.hooks.let_go("select")
        output, _ = await process.communicate()
        assert process.returncode == 0, output
    assert builds.hooks.runs() == ALL


async def test_an_interrupted_command_leaves_a_cancelled_build_and_no_process(
    builds: RunningBuilds,
) -> None:
    async with run_until(builds, "build") as (process, pid):
        process.send_signal(signal.SIGTERM)
        await process.wait()
        assert process.returncode not in {0, None}
        assert not is_running(pid)
    assert builds.status.phase == "Cancelled"


async def test_real_steps_finish_after_a_kill_too(tmp_path: Path) -> None:
    builds = RunningBuilds(tmp_path, real_steps=True)
    builds.write(made_build())
    async with run_until(builds, "embed") as (process, pid):
        process.kill()
        await process.wait()
        await until(lambda: not is_running(pid), "the step has died with its runner")
    builds.hooks.forget_waiting("embed")
    builds.hooks.fail("build", "crashes")
    builds.hooks.runs()
    failed = await builds.builds("retry", "demo-daily", ends_with=1)
    assert "failed at step build: unexpected ZeroDivisionError: in a test" in failed.err
    assert "ZeroDivisionError" in (await builds.builds("logs", "demo-daily", "build")).out
    builds.hooks.repair("build")
    builds.hooks.fail("publish")
    refused = await builds.builds("retry", "demo-daily", ends_with=1)
    assert "failed at step publish: publish cannot work: do something about it" in refused.err
    builds.hooks.repair("publish")
    await builds.builds("retry", "demo-daily")
    assert builds.hooks.runs() == ["embed", "build", "build", "publish", "publish"]
    assert builds.rows() == ALL
