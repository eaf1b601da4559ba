"""One built-in step in its process: what it is given, and how it ends."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from shashin.builds import step as built_in
from shashin.builds import step_variables
from shashin.builds.step import StepContext, context_of, run_step
from shashin.builds.step_reports import Progress, ProgressFile, read_progress, read_reason
from shashin.errors import CorruptShard, UserError
from tests.support.made_builds import made_build

CHECK = {"name": "check", "command": ["true"]}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "build.json").write_bytes(made_build(CHECK).to_json())
    out = tmp_path / "outputs" / "fetch"
    out.mkdir(parents=True)
    return {
        step_variables.BUILD: str(tmp_path / "build.json"),
        step_variables.WORK: str(tmp_path / "work"),
        step_variables.OUT: str(out),
        step_variables.REPOSITORY: "file:///shards",
        step_variables.PROGRESS: str(tmp_path / "progress.json"),
        step_variables.REASON: str(tmp_path / "reason"),
    }


async def works(step: StepContext) -> None:
    (step.out / "rows.txt").write_text(step.build.spec.model)
    for done in range(100):
        step.progress(done, 100, "photos")


async def fails(step: StepContext) -> None:
    raise CorruptShard(f"{step.name}: a shard is corrupt")


async def fills_the_disk(step: StepContext) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(step.out))


async def crashes(step: StepContext) -> None:
    raise ZeroDivisionError("unexpectedly")


def reason(environment: dict[str, str]) -> str:
    return read_reason(Path(environment[step_variables.REASON]))


def run_with(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], function: object) -> int:
    # By its name in a module, as real steps are found.
    monkeypatch.setattr(built_in, "works_in_a_test", function, raising=False)
    monkeypatch.setitem(built_in.STEPS, "fetch", f"{built_in.__name__}:works_in_a_test")
    return run_step("fetch", environment)


def test_a_step_that_returns_has_succeeded_and_its_last_progress_is_there(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    assert run_with(monkeypatch, environment, works) == 0
    assert (Path(environment[step_variables.OUT]) / "rows.txt").read_text() == "demo-v1"
    progress = read_progress(Path(environment[step_variables.PROGRESS]))
    assert progress == Progress(99, 100, "photos")
    assert not reason(environment)


def test_a_known_error_is_one_line_and_the_reason(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_with(monkeypatch, environment, fails) == 1
    assert capsys.readouterr().err == "fetch: fetch: a shard is corrupt\n"
    assert reason(environment) == "fetch: a shard is corrupt"


def test_a_full_disk_is_a_known_error(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    assert run_with(monkeypatch, environment, fills_the_disk) == 1
    assert reason(environment) == (
        f"{environment[step_variables.OUT]}: no space left on device: free some space, then retry"
    )


def test_an_unexpected_error_leaves_its_traceback_in_the_log(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert run_with(monkeypatch, environment, crashes) == 1
    assert reason(environment) == (
        "unexpected ZeroDivisionError: unexpectedly; the log has the traceback"
    )


def test_only_the_output_of_steps_before_can_be_read(environment: dict[str, str]) -> None:
    context = context_of("fetch", environment)
    assert context.output_of("select") == context.out.parent / "select"
    assert context.output_of("check") == context.out.parent / "check"
    for other in ("fetch", "embed", "../../etc"):
        with pytest.raises(
            UserError, match=r"step fetch has no step .* before it: .* select, check"
        ):
            context.output_of(other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {step_variables.OUT: ""},
            "SHASHIN_STEP_OUT not set: a step is run by `shashin builds run`",
        ),
        ({step_variables.BUILD: "/nowhere"}, "SHASHIN_BUILD=/nowhere cannot be read"),
    ],
)
def test_a_step_that_is_run_otherwise_says_what_it_lacks(
    change: dict[str, str], message: str, environment: dict[str, str]
) -> None:
    with pytest.raises(UserError, match=message):
        context_of("fetch", {**environment, **change})


def test_every_built_in_step_has_a_function() -> None:
    assert {
        name: f"shashin.builds.steps.{name}:run"
        for name in ("select", "fetch", "embed", "build", "publish")
    } == built_in.STEPS


def test_progress_is_written_a_few_times_per_second_and_at_the_end(tmp_path: Path) -> None:
    now = 0.0
    path = tmp_path / "progress.json"
    file = ProgressFile(path, clock=lambda: now)
    written = []
    for number in range(100):
        now = number / 64
        file.set(Progress(number, 100))
        written.append(json.loads(path.read_text())["done"])
    assert sorted(set(written)) == list(range(0, 100, 13))
    file.flush()
    assert read_progress(path) == Progress(99, 100)


def test_progress_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    file = ProgressFile(tmp_path / "file" / "progress.json")
    file.set(Progress(1))
    ProgressFile(None).set(Progress(1))
