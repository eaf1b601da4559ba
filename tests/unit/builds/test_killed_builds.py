"""Processes of a build that are killed, at any step: a retry finishes, and nothing runs twice at once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from shashin.builds.document import BUILT_IN_STEPS
from shashin.builds.runner import cancel_build
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


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("step", ALL)
async def test_a_runner_that_is_killed_takes_its_step_along_and_a_retry_finishes(
    step: str, builds: RunningBuilds
) -> None:
    async with builds.started_until(step) as (process, pid):
        process.kill()
        await process.wait()
        await until(lambda: not is_running(pid), "the step has died with its runner")
    assert builds.status.reason == RUNNER_DIED
    assert "half" in builds.rows(step)
    builds.hooks.forget_waiting(step)
    builds.hooks.runs()
    assert (await builds.retry()).phase == "Succeeded"
    assert builds.hooks.runs() == ALL[ALL.index(step) :]
    assert builds.rows() == ALL


async def test_what_a_killed_runner_leaves_behind_is_ended_before_a_retry_begins(
    builds: RunningBuilds,
) -> None:
    # It leaves its process group and its parent, and so does not die with the runner.
    writes = "while :; do echo $$ > $SHASHIN_BUILD_WORK/writer; sleep 0.02; done"
    orphan = {"name": "check", "command": ["sh", "-c", f"setsid sh -c '{writes}' & sleep 86400"]}
    builds.write(made_build(orphan))
    written = builds.record.work / "writer"
    async with builds.started() as process:
        pid = int(await until(lambda: written.exists() and written.read_text(), "it writes"))
        process.kill()
        await process.wait()
    assert is_running(pid)
    # The first thing that runs then; a dead process without a parent may stay as a zombie.
    no_writer = f"grep -q ' Z ' /proc/{pid}/stat || ! test -e /proc/{pid}"
    builds.record.write_document(made_build({"name": "check", "command": ["sh", "-c", no_writer]}))
    try:
        assert (await builds.retry()).phase == "Succeeded"
    finally:
        if is_running(pid):
            os.kill(pid, signal.SIGKILL)


async def test_a_build_whose_runner_was_killed_can_be_cancelled(builds: RunningBuilds) -> None:
    async with builds.started_until("fetch") as (process, _):
        process.kill()
        await process.wait()
    assert (await cancel_build(builds.record)).status.phase == "Cancelled"
    assert builds.record.read_status().phase == "Cancelled"


async def test_cancel_waits_until_a_running_build_has_stopped(builds: RunningBuilds) -> None:
    async with builds.started_until("embed", "run", builds.file) as (process, pid):
        finished = await builds.builds("cancel", "demo-daily")
        assert not is_running(pid)
        assert "was cancelled at step embed: someone cancelled it" in finished.out
        output, _ = await process.communicate()
        assert process.returncode == 1
        assert "build demo-daily was cancelled at step embed" in output.decode()


async def test_a_second_command_is_refused_while_the_first_one_runs(
    builds: RunningBuilds,
) -> None:
    async with builds.started_until("select") as (process, _):
        refused = await builds.builds("run", builds.file, ends_with=1)
        assert "another process runs build demo-daily" in refused.err
        builds.hooks.let_go("select")
        output, _ = await process.communicate()
        assert process.returncode == 0, output
    assert builds.hooks.runs() == ALL


async def test_an_interrupted_command_leaves_a_cancelled_build_and_no_process(
    builds: RunningBuilds,
) -> None:
    async with builds.started_until("build", "run", builds.file) as (process, pid):
        process.send_signal(signal.SIGTERM)
        await process.wait()
        assert process.returncode not in {0, None}
        assert not is_running(pid)
    assert builds.status.phase == "Cancelled"


async def test_real_steps_finish_after_a_kill_too(tmp_path: Path) -> None:
    builds = RunningBuilds(tmp_path, real_steps=True)
    builds.write(made_build())
    async with builds.started_until("embed") as (process, pid):
        process.kill()
        await process.wait()
        await until(lambda: not is_running(pid), "the step has died with its runner")
    builds.hooks.forget_waiting("embed")
    builds.hooks.fail("build", "crashes")
    builds.hooks.fail("publish")
    builds.hooks.runs()
    async with builds.started() as process:
        assert await process.wait() == 1
    assert builds.status.reason.startswith("unexpected ZeroDivisionError: in a test; the log has")
    assert "Traceback" in builds.record.log_path("build", 2).read_text()
    builds.hooks.repair("build")
    refused = await builds.builds("retry", "demo-daily", ends_with=1)
    assert "failed at step publish: publish cannot work: do something about it" in refused.err
    builds.hooks.repair("publish")
    async with builds.started() as process:
        assert await process.wait() == 0
    assert builds.hooks.runs() == ["embed", "build", "build", "publish", "publish"]
    assert builds.rows() == ALL
