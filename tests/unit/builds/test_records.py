"""The records of builds: readable at any moment, owned by one process, named when they cannot be read."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from shashin.builds.fingerprints import fingerprints
from shashin.builds.records import BuildRecord, BuildRecords
from shashin.builds.status import RUNNER_DIED, BuildStatus
from shashin.errors import (
    BuildNotFound,
    BuildRunning,
    DiskUnavailable,
    ShashinError,
    UnknownFormat,
    UnreadableBuild,
    UserError,
)
from tests.support.made_builds import made_build

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
REPOSITORY = "file:///shards"


@pytest.fixture
def record(tmp_path: Path) -> BuildRecord:
    made = BuildRecords(tmp_path).record("demo-daily")
    made.create(made_build(), new())
    return made


def new() -> BuildStatus:
    return BuildStatus.of_a_new_build(
        fingerprints(made_build(), REPOSITORY),
        repository=REPOSITORY,
        command_folder="/",
        now=NOW,
    )


def running() -> BuildStatus:
    return new().attempt_begun(
        fingerprints(made_build(), REPOSITORY),
        repository=REPOSITORY,
        command_folder="/",
        run="a run",
        pid=42,
        now=NOW,
    )


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_a_record_is_created_as_a_whole_and_once(record: BuildRecord) -> None:
    assert names(record.folder.parent) == {"demo-daily"}
    record.write_status(running())
    record.create(made_build(), new())
    assert record.read_status() == running(), "the record that was there first stays"


async def test_only_one_process_owns_a_record(record: BuildRecord) -> None:
    assert not record.is_locked()
    async with record.locked():
        assert record.is_locked()
        with pytest.raises(BuildRunning, match="another process runs build demo-daily"):
            async with record.locked():
                pass
        assert record.is_locked()
    async with record.locked():
        pass


async def test_a_running_build_of_which_the_process_is_gone_reads_as_failed(
    record: BuildRecord,
) -> None:
    record.write_status(running())
    async with record.locked():
        assert record.read().status.phase == "Running"
    assert record.read().status.reason == RUNNER_DIED


async def test_progress_is_read_from_the_step_that_reports_it(record: BuildRecord) -> None:
    record.write_status(running().step_begun("select", NOW))
    async with record.locked():
        assert record.read().status.steps[0].progress is None
        record.reports("select").mkdir(parents=True)
        record.progress_path("select").write_text('{"done": 3, "total": 12}')
        progress = record.read().status.steps[0].progress
        assert progress is not None
        assert (progress.done, progress.total, progress.unit) == (3, 12, "rows")
        for nonsense in ("{", "[]", '{"done": "many"}', '{"done": NaN}', '{"done": 1, "odd": 1}'):
            record.progress_path("select").write_text(nonsense)
            assert record.read().status.steps[0].progress is None


@pytest.mark.parametrize(
    ("file", "content", "error", "message"),
    [
        ("status.json", None, UnreadableBuild, "status.json cannot be read: no such file"),
        ("status.json", b"half a f", UnreadableBuild, "status.json is not JSON"),
        ("status.json", b"\xff", UnreadableBuild, "status.json is not JSON"),
        ("status.json", b"[]", UnreadableBuild, "is not the status of a build"),
        ("status.json", b'{"format": "x/2"}', UnknownFormat, "has format 'x/2'"),
        ("status.json", b"[" * 100_000, UnreadableBuild, "status.json is not JSON"),
        ("build.json", None, UnreadableBuild, "build.json cannot be read: no such file"),
        ("build.json", b"{}", UnreadableBuild, "build.json: kind: missing"),
        ("build.json", b"{", UnreadableBuild, "build.json is not JSON"),
    ],
)
def test_what_cannot_be_read_is_named_beside_healthy_builds(
    record: BuildRecord,
    file: str,
    content: bytes | None,
    error: type[ShashinError],
    message: str,
) -> None:
    (record.folder / file).unlink()
    if content is not None:
        (record.folder / file).write_bytes(content)
    records = BuildRecords(record.folder.parents[1])
    healthy = records.record("healthy")
    document = made_build().document()
    document["metadata"]["name"] = "healthy"
    healthy.create(type(made_build()).model_validate(document), new())
    found, unreadable = records.read_all()
    assert [one.build.name for one in found] == ["healthy"]
    assert list(unreadable) == ["demo-daily"]
    assert isinstance(unreadable["demo-daily"], error)
    assert message in unreadable["demo-daily"].message


def test_a_record_under_another_name_is_unreadable(record: BuildRecord) -> None:
    copied = BuildRecord(record.folder.rename(record.folder.with_name("other")))
    with pytest.raises(UnreadableBuild, match="is the document of 'demo-daily'"):
        copied.read()


def test_folders_that_are_no_builds_are_named_or_left_out(record: BuildRecord) -> None:
    (record.folder.parent / "Not a build").mkdir()
    (record.folder.parent / ".new-half.0123").mkdir()
    (record.folder.parent / "file").touch()
    found, unreadable = BuildRecords(record.folder.parents[1]).read_all()
    assert [one.build.name for one in found] == ["demo-daily"]
    assert list(unreadable) == ["Not a build"]


def test_no_builds_are_an_empty_list(tmp_path: Path) -> None:
    assert BuildRecords(tmp_path / "new").read_all() == ([], {})


async def test_a_build_that_is_not_there_is_named(tmp_path: Path) -> None:
    absent = BuildRecords(tmp_path).record("absent")
    with pytest.raises(BuildNotFound, match="no build is named 'absent'"):
        absent.read()
    with pytest.raises(BuildNotFound):
        async with absent.locked():
            pass
    for impossible in ("../elsewhere", "", "UPPER", "a" * 64, ".new-x"):
        with pytest.raises(UserError, match="cannot be the name of a build"):
            BuildRecords(tmp_path).record(impossible)


async def test_a_removed_record_is_gone_with_all_that_it_had(record: BuildRecord) -> None:
    (record.outputs / "select").mkdir(parents=True)
    for left in (".new-demo-daily.0123", ".removed-demo-daily.4567"):
        (record.folder.with_name(left) / "outputs").mkdir(parents=True)
    async with record.locked():
        record.remove()
    assert names(record.folder.parent) == set()
    with pytest.raises(BuildNotFound):
        record.read()


def test_logs_are_listed_by_attempt(record: BuildRecord) -> None:
    for attempt in (2, 10, 1):
        path = record.log_path("embed", attempt)
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (record.folder / "logs" / "notes.txt").touch()
    assert [(log.step, log.attempt) for log in record.logs()] == [
        ("embed", 1),
        ("embed", 2),
        ("embed", 10),
    ]


def test_a_status_that_cannot_be_written_leaves_the_last_one(record: BuildRecord) -> None:
    beside = record.folder / "status.json"
    before = beside.read_bytes()
    occupied = BuildRecord(record.folder / "status.json" / "below")
    with pytest.raises(DiskUnavailable, match=r"below/status\.json cannot be written: not a dir"):
        occupied.write_status(new())
    assert beside.read_bytes() == before
