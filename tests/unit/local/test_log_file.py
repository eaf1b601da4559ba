"""A process's log has a bounded size, and its last lines can be read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shashin.local.log_file import BoundedLog, LogStream, last_lines, quoted, size_of

CHUNKS = st.lists(st.binary(max_size=120), max_size=30)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "router.log"


@pytest.fixture
def log(path: Path) -> Iterator[BoundedLog]:
    with closing(BoundedLog(path, max_bytes=100)) as opened:
        yield opened


def earlier(path: Path) -> Path:
    return path.with_name("router.log.1")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # each has its own folder
@given(CHUNKS)
def test_at_most_two_files_hold_the_newest_data(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("logs") / "router.log"
    with closing(BoundedLog(path, max_bytes=100)) as log:
        for chunk in chunks:
            log.write(chunk)
    assert {file.name for file in path.parent.iterdir()} <= {"router.log", "router.log.1"}
    both = [file.read_bytes() for file in (earlier(path), path) if file.exists()]
    assert all(len(data) <= max(100, *map(len, chunks), 0) for data in both)
    assert b"".join(chunks).endswith(b"".join(both))
    assert b"".join(both).endswith(chunks[-1] if chunks else b"")


def test_a_log_is_appended_to_that_of_an_earlier_process(log: BoundedLog, path: Path) -> None:
    log.write(b"a" * 60)
    with closing(BoundedLog(path, max_bytes=100)) as again:
        again.write(b"b" * 60)
    assert earlier(path).read_bytes() == b"a" * 60
    assert path.read_bytes() == b"b" * 60


def test_a_deleted_log_is_recreated_at_the_next_rotation(log: BoundedLog, path: Path) -> None:
    log.write(b"a" * 60)
    path.unlink()
    for letter in (b"b", b"c", b"d"):
        log.write(letter * 60)
        assert path.read_bytes() == letter * 60


def test_lines_that_cannot_be_written_are_lost_and_later_ones_are_not(
    log: BoundedLog, path: Path
) -> None:
    log.write(b"a" * 60)
    earlier(path).mkdir()  # in the way of what is to be renamed
    log.write(b"b" * 60)
    earlier(path).rmdir()
    log.write(b"c" * 60)
    assert path.read_bytes() == b"c" * 60
    assert earlier(path).read_bytes().startswith(b"a" * 60)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b"a line\n"),
        (b"whole\n", b"whole\na line\n"),
        (b"cut in the mid", b"cut in the mid\na line\n"),
    ],
)
def test_a_line_begins_a_new_one_whatever_stands_before_it(
    path: Path, before: bytes, after: bytes
) -> None:
    with closing(BoundedLog(path)) as log:
        log.write(before)
        log.write_line("a line")
    assert path.read_bytes() == after
    path.write_bytes(before)
    with closing(BoundedLog(path)) as again:
        again.write_line("a line")
    assert path.read_bytes() == after, "an earlier process left it so"


def test_what_is_written_to_the_stream_of_a_log_is_bounded_as_well(path: Path) -> None:
    with closing(BoundedLog(path, max_bytes=100)) as log:
        for number in range(50):
            print(f"line {number} with an odd \udcff", file=LogStream(log))
    assert {file.name for file in path.parent.iterdir()} == {"router.log", "router.log.1"}
    assert all(file.stat().st_size <= 100 for file in path.parent.iterdir())
    assert last_lines(path, 1) == ["line 49 with an odd ?"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device is always full here")
def test_a_full_disk_never_stops_the_process_that_writes(tmp_path: Path) -> None:
    (tmp_path / "full.log").symlink_to("/dev/full")
    with closing(BoundedLog(tmp_path / "full.log")) as log:
        log.write(b"lost")


LINES = st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"])), max_size=30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LINES, st.integers(1, 20))
def test_the_last_lines_are_those_that_are_not_blank(
    tmp_path: Path, lines: list[str], count: int
) -> None:
    (tmp_path / "log").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    assert last_lines(tmp_path / "log", count) == [line for line in lines if line][-count:]


@given(LINES, LINES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lines_of_interest_are_those_since_a_size(
    tmp_path: Path, before: list[str], after: list[str]
) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f"{line}\n" for line in before), encoding="utf-8")
    since = size_of(path)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in after)
    assert last_lines(path, 100, since=since) == [line for line in after if line]


def test_a_log_that_was_rotated_counts_from_its_beginning(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("new\n")
    assert last_lines(tmp_path / "log", since=1000) == ["new"]


def test_only_the_end_of_a_large_log_is_read_and_no_line_of_it_is_cut(tmp_path: Path) -> None:
    lines = [f"line {number} of many" for number in range(10_000)]
    (tmp_path / "log").write_text("\n".join(lines))
    assert last_lines(tmp_path / "log", 5) == lines[-5:]
    assert set(last_lines(tmp_path / "log", 10_000)) < set(lines)


def test_of_a_last_line_that_is_very_long_the_end_is_shown(tmp_path: Path) -> None:
    # A traceback is one line of a JSON log, and says in the end what went wrong.
    (tmp_path / "log").write_text("before\n" + "x" * 100_000 + " ZeroDivisionError\n")
    (line,) = last_lines(tmp_path / "log")
    assert line.endswith(" ZeroDivisionError")


def test_bytes_that_are_no_text_are_shown_as_far_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"good\n\xff\xfe bad\n")
    assert last_lines(tmp_path / "log") == ["good", "\ufffd\ufffd bad"]


def test_a_log_that_is_not_there_has_no_lines_and_no_size(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "log") == []
    assert size_of(tmp_path / "log") == 0


def test_lines_stand_apart_from_the_message_that_they_end() -> None:
    assert quoted(["one", "two"]) == "\n  | one\n  | two"
    assert quoted([]) == " (its log is empty)"
