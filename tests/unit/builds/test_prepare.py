"""The folders of an attempt on Kubernetes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shashin.builds.prepare import prepare_folders
from shashin.builds.prepare_codes import INVALID, LOST_OUTPUT
from shashin.builds.step_reports import MAX_RESULT_BYTES, Progress, parse_result, write_result
from shashin.errors import StepFailed
from tests.support.made_builds import made_build

STEPS = ("select", "fetch", "embed", "build", "publish")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a build of which the first attempt has made something in each step."""
    folder = tmp_path / "demo-daily.6d6b4f5e"
    prepare_folders(folder, STEPS, (), ())
    for step in STEPS:
        (folder / "outputs" / step / "made").write_text(step)
        (folder / "reports" / step / "progress.json").write_text("{}")
    (folder / "work" / "photos").mkdir()
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_first_attempt_finds_an_empty_folder_for_each_step(tmp_path: Path) -> None:
    folder = tmp_path / "builds" / "demo"
    prepare_folders(folder, STEPS, (), ())
    assert names(folder / "outputs") == sorted(STEPS)
    assert names(folder / "reports") == sorted(STEPS)
    assert files(folder) == []


def test_a_retry_keeps_what_succeeded_and_what_steps_share(folder: Path) -> None:
    prepare_folders(folder, STEPS[2:], STEPS[:2], ())
    assert [name for name in files(folder) if name.startswith("outputs")] == [
        "outputs/fetch/made",
        "outputs/select/made",
    ]
    assert names(folder / "outputs") == sorted(STEPS)
    assert (folder / "work" / "photos").is_dir()


def test_an_attempt_at_all_steps_begins_anew(folder: Path) -> None:
    prepare_folders(folder, STEPS, (), ())
    assert files(folder) == []
    assert names(folder / "work") == []


def test_what_no_step_of_the_pipeline_makes_any_more_is_deleted(folder: Path) -> None:
    (folder / "outputs" / "filter").mkdir()
    (folder / "outputs" / "link").symlink_to("/")
    prepare_folders(folder, STEPS[1:], STEPS[:1], ())
    assert names(folder / "outputs") == sorted(STEPS)


def test_a_step_whose_output_is_gone_cannot_be_kept(folder: Path) -> None:
    (folder / "outputs" / "fetch" / "made").unlink()
    (folder / "outputs" / "fetch").rmdir()
    with pytest.raises(StepFailed, match="no longer what fetch made: the next attempt begins with"):
        prepare_folders(folder, STEPS[2:], STEPS[:2], ())
    assert (folder / "outputs" / "select" / "made").exists(), "nothing is deleted"


def test_files_of_other_builds_that_nobody_needs_are_deleted(folder: Path) -> None:
    for name in ("old.1", "other.2"):
        (folder.parent / name / "outputs").mkdir(parents=True)
    prepare_folders(folder, STEPS, (), ["old.1", "never-there.3", folder.name])
    assert names(folder.parent) == [folder.name, "other.2"]


def prepared(tmp_path: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Run the module; returns its exit code and reason."""
    reason = tmp_path / "reason"
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "shashin.builds.prepare",
            "--folder",
            str(tmp_path / "b"),
            *arguments,
        ],
        check=False,
        env={**os.environ, "SHASHIN_STEP_REASON": str(reason), **environment},
    )
    return ended.returncode, reason.read_text() if reason.exists() else ""


def test_a_model_of_which_the_repository_has_no_shard_is_refused(tmp_path: Path) -> None:
    document = tmp_path / "build.json"
    document.write_bytes(made_build().to_json())
    repository = (tmp_path / "repository").as_uri()
    code, reason = prepared(
        tmp_path, "--run", *STEPS, SHASHIN_BUILD=str(document), SHASHIN_REPOSITORY=repository
    )
    assert code == INVALID
    assert reason == f"IndexBuild demo-daily: the repository {repository} has no shards yet"


def test_a_missing_variable_is_named(tmp_path: Path) -> None:
    code, reason = prepared(tmp_path, "--run", *STEPS, SHASHIN_BUILD="", SHASHIN_REPOSITORY="")
    assert code == INVALID
    assert reason.startswith("SHASHIN_BUILD, SHASHIN_REPOSITORY not set")


def test_lost_output_has_an_exit_code_of_its_own(tmp_path: Path) -> None:
    code, reason = prepared(tmp_path, "--run", "publish", "--keep", "build")
    assert code == LOST_OUTPUT
    assert "has no longer what build made" in reason


def test_a_result_is_what_was_written(tmp_path: Path) -> None:
    write_result(tmp_path / "result", ["demo-v1.daily.b7"], Progress(9, 10, "rows"))
    result = parse_result((tmp_path / "result").read_text())
    assert result.shards == ("demo-v1.daily.b7",)
    assert result.progress == Progress(9, 10, "rows")


def test_a_result_is_as_long_as_a_termination_message_may_be(tmp_path: Path) -> None:
    shards = [f"{'m' * 90}.daily.{n:04d}" for n in range(100)]
    write_result(tmp_path / "result", shards, None)
    text = (tmp_path / "result").read_text()
    assert MAX_RESULT_BYTES - 120 < len(text) <= MAX_RESULT_BYTES
    found = parse_result(text).shards
    assert list(found) == shards[: len(found)]


@pytest.mark.parametrize("text", ["", "the last line of a log", '{"shards": 7}', "[]"])
def test_what_is_no_result_is_an_empty_one(text: str) -> None:
    assert parse_result(text).shards == ()
