"""The store of hidden listings: a dictionary that survives kill -9 with its position, and no other's."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.indexer.hidden_store import HiddenStore
from shashin.errors import DiskUnavailable
from shashin.offsets.log_position import LogPosition
from shashin.serving.hidden_listings import LogBounds
from shashin.shards.visibility import HiddenEntry

TOPIC = "a-topic"


def bounds(begin: int = 0, end: int = 1_000_000, topic_id: str = TOPIC) -> LogBounds:
    return LogBounds(topic_id, {0: begin}, {0: end})


def at(offset: int, topic_id: str = TOPIC) -> LogPosition:
    return LogPosition(topic_id, {0: offset})


@contextmanager
def opened(folder: Path, known: LogBounds | None = None) -> Iterator[HiddenStore]:
    with closing(HiddenStore(folder)) as store:
        store.open_at(known or bounds())
        yield store


ENTRIES = st.lists(
    st.builds(
        HiddenEntry,
        st.sampled_from(["lamp", "chair", "mug", "", "ü", "l:lamp"]),
        st.integers(0, 6) | st.integers(2**63, 2**64 - 1),
    ),
    max_size=6,
)


@settings(deadline=None, max_examples=12)
@given(st.lists(st.tuples(ENTRIES, st.booleans()), max_size=6))
def test_it_is_a_dictionary_that_only_grows_across_restarts(
    batches: list[tuple[list[HiddenEntry], bool]],
) -> None:
    below: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as name:
        store = HiddenStore(Path(name))
        assert store.open_at(bounds()) == at(0)
        for number, (entries, restarts) in enumerate(batches, start=1):
            store.note(entries, at(number))
            for entry in entries:
                below[entry.listing_id] = max(entry.below_version, below.get(entry.listing_id, 0))
            if restarts:
                store.close()
                store = HiddenStore(Path(name))
                assert store.open_at(bounds()) == at(number)
            assert len(store) == len(below)
            assert dict(store.below_each([*below, "other"])) == {**below, "other": 0}
            for listing, version in below.items():
                assert store.visible(listing, version)
                assert not version or not store.visible(listing, version - 1)
        store.close()


WRITER = """
import sys
from pathlib import Path
from services.indexer.hidden_store import HiddenStore
from shashin.offsets.log_position import LogPosition
from shashin.serving.hidden_listings import LogBounds
from shashin.shards.visibility import HiddenEntry
store = HiddenStore(Path(sys.argv[1]))
offset = store.open_at(LogBounds("a-topic", {0: 0}, {0: 1_000_000})).offset(0)
while True:
    entries = [HiddenEntry(f"listing-{n}", n + 1) for n in range(offset, offset + 500)]
    offset += 500
    store.note(entries, LogPosition("a-topic", {0: offset}))
    print(offset, flush=True)
"""


def test_after_kill_9_it_has_everything_before_its_position_and_loses_nothing_acknowledged(
    tmp_path: Path,
) -> None:
    acknowledged = 0
    for batches in (3, 40):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            for _ in range(batches):
                acknowledged = int(writer.stdout.readline())
            writer.kill()
        with opened(tmp_path) as store:
            reached = store.open_at(bounds()).offset(0)
            assert reached >= acknowledged
            assert len(store) == reached, "entries and position are one write"
            known = store.below_each(f"listing-{n}" for n in range(reached + 500))
            assert [below for _, below in known[:reached]] == [*range(1, reached + 1)]
            assert not any(below for _, below in known[reached:])


@pytest.mark.parametrize(
    ("known", "begin"),
    [
        (bounds(topic_id="another-topic"), 0),
        (bounds(begin=8), 8),
        (bounds(end=4), 0),
        (LogBounds(TOPIC, {1: 3}, {1: 9}), 3),
    ],
)
def test_a_store_of_another_topic_or_behind_the_log_is_filled_again_from_the_log_s_begin(
    tmp_path: Path, known: LogBounds, begin: int
) -> None:
    with opened(tmp_path) as store:
        store.note([HiddenEntry("lamp", 2)], at(5))
    with opened(tmp_path, known) as store:
        assert (len(store), store.below("lamp")) == (0, 0)
        assert store.begin == store.position == LogPosition(known.topic_id, dict(known.begins))
        assert set(store.position.offsets.values()) == {begin}


def test_what_was_read_is_known_though_the_log_deletes_it_later(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.note([HiddenEntry("lamp", 2)], at(5))
    with opened(tmp_path, bounds(begin=5)) as store:
        assert (store.below("lamp"), store.begin, store.position) == (2, at(0), at(5))


def test_a_new_partition_is_read_from_its_begin(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.note([HiddenEntry("lamp", 2)], at(5))
        grown = LogBounds(TOPIC, {0: 0, 1: 0}, {0: 9, 1: 9})
        assert store.open_at(grown).offsets == {0: 5, 1: 0}
        assert store.below("lamp") == 2


def damage(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.suffix in {".sst", ".log"} or path.name.startswith("MANIFEST"):
            path.write_bytes(b"x" * path.stat().st_size)


def truncate_tables(folder: Path) -> None:
    for path in folder.rglob("*.sst"):
        path.write_bytes(path.read_bytes()[:-10])


def lose_manifests(folder: Path) -> None:
    for path in folder.rglob("MANIFEST*"):
        path.unlink()


@pytest.mark.parametrize("harm", [damage, truncate_tables, lose_manifests])
def test_a_damaged_store_is_filled_again(tmp_path: Path, harm: object) -> None:
    with opened(tmp_path) as store:
        store.note([HiddenEntry(f"listing-{n}", 2) for n in range(2000)], at(5))
        store._usable().flush()
    assert callable(harm)
    harm(tmp_path)
    with opened(tmp_path) as store:
        assert (len(store), store.position) == (0, at(0))
        store.note([HiddenEntry("lamp", 2)], at(7))
    with opened(tmp_path) as store:
        assert (len(store), store.position) == (1, at(7))


def test_damage_that_is_found_while_it_is_used_is_reported_and_the_store_filled_again(
    tmp_path: Path,
) -> None:
    ids = [f"listing-{n}" for n in range(20_000)]
    with opened(tmp_path) as store:
        store.note([HiddenEntry(listing, 2) for listing in ids], at(5))
        store._usable().flush()
    largest = max(tmp_path.rglob("*.sst"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[1000:3000] = b"x" * 2000
    largest.write_bytes(content)
    with opened(tmp_path) as store:
        with pytest.raises(DiskUnavailable, match="cannot be used: Corruption"):
            store.below_each(ids)
        assert store.open_at(bounds()) == at(0)
        assert store.below(ids[0]) == 0


def test_a_folder_that_another_process_uses_is_not_touched(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.note([HiddenEntry("lamp", 2)], at(5))
        with pytest.raises(DiskUnavailable, match="LOCK"):
            HiddenStore(tmp_path).open_at(bounds())
        assert store.below("lamp") == 2
    with opened(tmp_path) as store:
        assert store.below("lamp") == 2


def test_a_folder_that_cannot_be_written_is_a_problem_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DiskUnavailable, match="cannot be used"):
        HiddenStore(tmp_path / "file").open_at(bounds())
