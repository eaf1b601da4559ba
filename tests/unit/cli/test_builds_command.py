"""``shashin builds``: what it prints, and its exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from shashin.builds.records import BuildRecords, StepLog
from shashin.builds.step_reports import Progress
from shashin.cli.app import app
from shashin.cli.builds.following import LogTail, chosen_logs
from shashin.cli.builds.view import rate_text
from shashin.errors import UserError
from tests.support.made_builds import BUILT_IN, DOCUMENT, changed, made_build
from tests.support.running_builds import RunningBuilds

GOLDEN = Path(__file__).parents[1] / "builds" / "golden" / "demo-daily"


def builds(*arguments: object, state: Path) -> Result:
    return CliRunner().invoke(
        app, ["builds", *map(str, arguments)], env={"SHASHIN_STATE": str(state)}
    )


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return a state folder with one build that has failed."""
    shutil.copytree(GOLDEN, tmp_path / "builds" / "demo-daily")
    record = BuildRecords(tmp_path).record("demo-daily")
    for step, attempt, text in (
        ("select", 1, "first\n"),
        ("select", 2, "second\n"),
        ("check", 2, "\x1b[31mcaf\xe9\r\nno end"),
    ):
        path = record.log_path(step, attempt)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_builds_are_listed_with_their_phase_and_those_that_cannot_be_read_by_name(
    state: Path,
) -> None:
    (state / "builds" / "broken").mkdir()
    result = builds("ls", state=state)
    assert result.exit_code == 0
    (line,) = [line for line in result.stdout.splitlines() if "demo-daily" in line]
    assert "Failed" in line
    assert "1/6" in line
    assert "unreadable: broken: " in result.stdout
    listed = json.loads(builds("ls", "--json", state=state).stdout)
    assert [one["name"] for one in listed] == ["demo-daily", "broken"]
    assert listed[0]["steps"]["check"] == "Failed"
    assert "build.json cannot be read" in listed[1]["error"]


def test_no_builds_say_how_to_run_one(tmp_path: Path) -> None:
    assert "`shashin builds run FILE`" in builds("ls", state=tmp_path).stdout


def test_a_build_is_shown_with_its_steps_and_outputs(state: Path) -> None:
    text = builds("show", "demo-daily", state=state).stdout
    for shown in (
        "flat-f16",
        "412/412 rows",
        "165 rows/s",
        "ended by SIGKILL",
        "137",
        "rows/a.npy",
    ):
        assert shown in text
    document = json.loads(builds("show", "demo-daily", "--json", state=state).stdout)
    assert document["build"] == json.loads((GOLDEN / "build.json").read_text())
    assert document["status"] == json.loads((GOLDEN / "status.json").read_text())


def test_logs_are_those_of_the_last_attempt_of_each_step_and_cannot_control_a_terminal(
    state: Path,
) -> None:
    result = builds("logs", "demo-daily", state=state)
    assert result.stdout == "second\n\\x1b[31mcafé\nno end\n"
    assert result.stderr == "==> select, attempt 2\n==> check, attempt 2\n"
    assert builds("logs", "demo-daily", "select", "--attempt", 1, state=state).stdout == "first\n"
    unknown = builds("logs", "demo-daily", "selct", state=state)
    assert unknown.exit_code == 2
    assert "it has select of attempt 1, select of attempt 2, check of attempt 2" in unknown.stderr


@pytest.mark.parametrize("command", ["show", "logs", "retry", "cancel", "rm"])
def test_a_build_that_is_not_there_is_a_user_error(command: str, state: Path) -> None:
    result = builds(command, "absent", state=state)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: no build is named 'absent'")


def test_a_build_is_removed(state: Path) -> None:
    assert builds("rm", "demo-daily", state=state).stdout == "removed build demo-daily\n"
    assert not (state / "builds" / "demo-daily").exists()


def test_a_build_that_has_ended_is_not_cancelled(state: Path) -> None:
    result = builds("cancel", "demo-daily", state=state)
    assert result.exit_code == 0
    assert "nothing to cancel: build demo-daily failed at step check: ended by" in result.stdout


@pytest.mark.parametrize(
    ("document", "mistake"),
    [
        (changed(teir="daily"), "spec.teir: unknown field: did you mean tier?"),
        (
            changed(window={"start": "2026-11-26T00:00:00Z", "end": "2999-01-01T00:00:00Z"}),
            "spec.window.end: 2999-01-01T00:00:00Z is in the future",
        ),
        (changed(pipeline=BUILT_IN[1:]), "spec.pipeline: without 'select'"),
        (DOCUMENT, "has no shards yet"),
    ],
)
def test_an_invalid_document_is_a_user_error_and_leaves_no_record(
    document: object, mistake: str, tmp_path: Path
) -> None:
    file = tmp_path / "build.json"
    file.write_text(json.dumps(document))
    result = builds("run", file, state=tmp_path / "state")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert mistake in result.stderr
    assert not (tmp_path / "state" / "builds").exists()


def test_a_model_without_shards_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    running = RunningBuilds(tmp_path)
    document = changed(model="demo-v2", source={"reindex": {"fromModel": "demo-1"}})
    running.file.write_text(json.dumps(document))
    result = builds("run", running.file, state=running.state)
    assert result.exit_code == 2
    assert "spec.source.reindex.fromModel: " in result.stderr
    assert "no shard of 'demo-1': did you mean demo-v1?" in result.stderr


async def test_a_build_is_run_with_its_progress_as_lines(tmp_path: Path) -> None:
    running = RunningBuilds(tmp_path)
    running.write(made_build())
    finished = await running.builds("run", running.file)
    assert finished.out.startswith("build demo-daily succeeded in ")
    assert "publish 2/2" in finished.err
    again = await running.builds("run", running.file)
    assert again.out == (
        "build demo-daily succeeded before, and nothing has changed since: no step had to run\n"
    )
    assert "select (kept) 2/2" in again.err


async def test_what_steps_print_is_followed(tmp_path: Path) -> None:
    running = RunningBuilds(tmp_path)
    running.write(made_build({"name": "check", "command": ["sh", "-c", "echo checked; exit 4"]}))
    following = running.started_until("select", "run", running.file, "--follow")
    async with (
        following as (process, _),
        running.started("logs", "demo-daily", "--follow") as follower,
    ):
        assert follower.stdout is not None
        first = await follower.stdout.readuntil(b"select works\n")
        running.hooks.let_go("select")
        output, _ = await process.communicate()
        assert process.returncode == 1, output
        rest, _ = await follower.communicate()
        assert follower.returncode == 0, rest
    for text in (output, first + rest):
        assert b"==> select, attempt 1\nselect works\n" in text
        # On a busy machine, lines of the progress come between.
        _, _, after = text.partition(b"==> check, attempt 1\n")
        assert b"checked" in after.splitlines()
    assert b"failed at step check: exit code 4" in output
    assert b"\n  | checked\n" in output, "the last lines of its log"


# --- pure parts -----------------------------------------------------------------------------------


def test_a_log_is_read_as_it_grows_line_by_line(tmp_path: Path) -> None:
    tail = LogTail(tmp_path / "log")
    assert list(tail.lines()) == []
    with (tmp_path / "log").open("wb", buffering=0) as log:
        log.write(b"one\ntw")
        assert list(tail.lines()) == ["one"]
        log.write(b"o\r\n\xff\n\nthree")
        assert list(tail.lines()) == ["two", "\ufffd", ""]
        assert list(tail.lines(to_the_end=True)) == ["three"]
        assert list(tail.lines(to_the_end=True)) == []


def test_logs_of_one_attempt_or_the_last_of_each_step() -> None:
    logs = [StepLog(step, n, Path(f"{step}.{n}")) for n, step in ((1, "a"), (1, "b"), (2, "b"))]
    assert chosen_logs(logs, "x", None, None) == [logs[0], logs[2]]
    assert chosen_logs(logs, "x", None, 1) == logs[:2]
    assert chosen_logs(logs, "x", "b", None) == logs[2:]
    with pytest.raises(UserError, match="none of its steps has run yet"):
        chosen_logs([], "x", None, None)


def test_a_rate_is_shown_once_it_is_known() -> None:
    assert rate_text(Progress(3000, None, "photos"), 2) == "1,500 photos/s"
    assert rate_text(Progress(3000), None) == ""
    assert rate_text(None, 2) == ""
