"""Open and sealed shards: deterministic bytes, and files that a sealed shard rejects."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shashin.errors import CorruptShard, RepositoryError, UnknownFormat
from shashin.offsets.ranges import OffsetRange
from shashin.shards.format.manifest import MANIFEST_FILE, ROWS_FILE
from shashin.shards.format.row import NewRow, Row, RowAttributes
from shashin.shards.kinds.ivf_sq4 import VECTORS_FILE, IvfSq4
from shashin.shards.kinds.protocol import GrowingKind
from shashin.shards.kinds.usearch_hnsw import INDEX_FILE, UsearchHnsw
from shashin.shards.open_shard import OpenShard
from shashin.shards.row_filter import RowFilter
from shashin.shards.sealed_shard import SealedShard
from shashin.tiers import HOURLY
from tests.support.hidden_map import HiddenMap
from tests.support.made_shards import (
    BUCKET_START,
    SPACE,
    listings,
    new_row,
    open_shard,
    vectors,
    write,
)

ADDED = st.lists(
    st.builds(
        new_row,
        st.sampled_from(["lamp", "chair", "mug", "hat"]),
        st.integers(1, 3),
        st.integers(0, 2),
        st.sampled_from(["", "shoes", "lamps"]).map(RowAttributes),
    ),
    max_size=40,
)

GRAPH = UsearchHnsw()


def digests(shard: OpenShard) -> dict[str, str]:
    """Return the SHA-256 of each file that the shard is written to."""
    with tempfile.TemporaryDirectory() as folder:
        write(shard, Path(folder))
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(Path(folder).iterdir())
            if path.name != MANIFEST_FILE
        }


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([IvfSq4(), GRAPH]), ADDED, st.data())
def test_the_same_range_gives_the_same_bytes_regardless_of_batches_and_hiding(
    kind: GrowingKind, rows: list[NewRow], data: st.DataObject
) -> None:
    at_once = open_shard(rows, kind=kind)
    expected = digests(at_once)
    assert {VECTORS_FILE if kind != GRAPH else INDEX_FILE, ROWS_FILE} <= set(expected)

    hidden = HiddenMap()
    in_pieces = open_shard(hidden=hidden, kind=kind)
    ends = sorted(data.draw(st.sets(st.integers(0, len(rows)))) | {len(rows)})
    begin = 0
    for end in ends:
        in_pieces.add(rows[begin:end], position=end, bucket_start=BUCKET_START)
        begin = end
        listing = data.draw(st.sampled_from(["lamp", "chair", "mug"]))
        hidden.raise_to(listing, 3)
        in_pieces.hide(listing, 3)
    assert digests(in_pieces) == expected

    one_by_one = open_shard(kind=kind)
    for number, row in enumerate(rows, start=1):
        one_by_one.add([row], position=number, bucket_start=BUCKET_START)
    assert digests(one_by_one) == expected


@given(ADDED)
@settings(deadline=None, max_examples=25)
def test_a_repeat_adds_nothing(rows: list[NewRow]) -> None:
    shard = open_shard(rows)
    before = shard.rows
    assert before == len({(r.row.listing_id, r.row.version, r.row.photo_number) for r in rows})
    assert shard.count_new([row.row for row in rows]) == 0
    shard.add(rows, position=2 * len(rows), bucket_start=BUCKET_START)
    assert shard.rows == before


def test_an_open_shard_reports_its_contents() -> None:
    shard = open_shard(from_offset=40, partition=3)
    assert (shard.bucket_start, shard.rows) == (None, 0)
    assert shard.ranges == (OffsetRange(3, 40, 40),)
    shard.add([new_row("lamp"), new_row("lamp", photo=1)], position=41, bucket_start=BUCKET_START)
    shard.add([], position=43, bucket_start=BUCKET_START + 3600)
    assert shard.bucket_start == BUCKET_START, "the first record's bucket counts"
    assert shard.ranges == (OffsetRange(3, 40, 43),)
    assert (shard.rows, shard.listings, shard.position) == (2, 1, 43)


def test_a_shard_without_rows_has_no_recall_and_can_be_sealed_and_searched(tmp_path: Path) -> None:
    shard = open_shard()
    shard.add([], position=3, bucket_start=BUCKET_START)
    manifest = shard.write(tmp_path, tier=HOURLY, bucket_seconds=3600, reason="time")
    assert manifest.recall_at_10 is None
    sealed = SealedShard(manifest, tmp_path)
    assert (sealed.rows, sealed.ranges) == (0, (OffsetRange(0, 0, 3),))
    (found,) = sealed.search(vectors(1, 1), 5, RowFilter())
    assert len(found.rows) == 0


@settings(deadline=None, max_examples=20)
@given(ADDED.filter(bool), st.integers(1, 4))
def test_a_sealed_shard_answers_as_the_open_one_did(rows: list[NewRow], k: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        opened = open_shard(rows)
        sealed = SealedShard(write(opened, folder), folder)
        assert (sealed.rows, sealed.ranges, sealed.bucket_start) == (
            opened.rows,
            opened.ranges,
            opened.bucket_start,
        )
        for shard in (opened, sealed):
            assert shard.hide("chair", 3) == shard.hidden_rows
            assert shard.hide("chair", 2) == 0
        for row_filter in (RowFilter(), RowFilter(categories=("shoes",))):
            answers = [s.search(vectors(2, 9), k, row_filter) for s in (opened, sealed)]
            for one, other in zip(*answers, strict=True):
                assert one.rows.tolist() == other.rows.tolist()
                assert one.scores.tolist() == other.scores.tolist()
        for listing in ("lamp", "chair"):
            assert opened.visible_rows_of(listing) == sealed.visible_rows_of(listing)
        everything = range(opened.rows)
        assert np.array_equal(opened.vectors(everything), sealed.vectors(everything))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "shard"


@pytest.mark.parametrize("name", [INDEX_FILE, ROWS_FILE])
@pytest.mark.parametrize("content", [b"", b"garbage", b"\0" * 5_000])
def test_a_file_that_is_garbage_is_refused_by_name(folder: Path, name: str, content: bytes) -> None:
    manifest = write(open_shard(listings(0, 5), kind=GRAPH), folder)
    (folder / name).write_bytes(content)
    with pytest.raises(CorruptShard, match=name.replace(".", r"\.")):
        SealedShard(manifest, folder)


@pytest.mark.parametrize("name", [INDEX_FILE, ROWS_FILE])
def test_a_file_of_another_shard_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    manifest = write(open_shard(listings(0, 5), kind=GRAPH), folder)
    write(open_shard(listings(0, 9), kind=GRAPH), tmp_path / "other")
    (folder / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(CorruptShard, match="its manifest says 5"):
        SealedShard(manifest, folder)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"dimensions": 16}, CorruptShard, "not an index of 16 dimensions"),
        ({"rows": 6}, CorruptShard, "5 rows and 5 vectors; its manifest says 6"),
        ({"index_kind": "faiss-ivf"}, UnknownFormat, "faiss-ivf ip bf16"),
        ({"metric": "l2"}, UnknownFormat, "usearch-hnsw l2 bf16"),
        ({"stored_type": "i8"}, UnknownFormat, "usearch-hnsw ip i8"),
        ({"index_parameters": {"lists": 9}}, UnknownFormat, "index parameters .*'lists'"),
    ],
)
def test_an_index_that_does_not_match_the_manifest_is_rejected(
    folder: Path, changes: dict[str, Any], error: type[RepositoryError], says: str
) -> None:
    manifest = write(open_shard(listings(0, 5), kind=GRAPH), folder, **changes)
    with pytest.raises(error, match=says):
        SealedShard(manifest, folder)


def test_a_missing_file_is_refused_by_name(folder: Path) -> None:
    manifest = write(open_shard(listings(0, 5), kind=GRAPH), folder)
    for name in (INDEX_FILE, ROWS_FILE):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        with pytest.raises(CorruptShard, match=name.replace(".", r"\.")):
            SealedShard(manifest, folder)
        (folder / name).write_bytes(content)


def test_looking_up_or_hiding_a_listing_while_its_row_is_added_is_safe() -> None:
    # Regression: when the mask had to grow, the row existed before its flag in the mask.
    full = 1024
    rows = [
        NewRow(Row(f"listing-{n}", 1, 0, RowAttributes()), vector)
        for n, vector in enumerate(vectors(full, 2))
    ]
    hidden = HiddenMap()
    shard = OpenShard(0, 0, SPACE, UsearchHnsw(connectivity=2, expansion_add=8), hidden)
    shard.add(rows, position=full, bucket_start=BUCKET_START)
    looked_up = []
    append = shard._writer.rows.append

    def append_while_others_look(row: Row) -> int:
        number = append(row)
        looked_up.append(shard.visible_rows_of("lamp"))
        hidden.raise_to("lamp", 2)
        shard.hide("lamp", 2)
        return number

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard._writer.rows, "append", append_while_others_look)
        shard.add([new_row("lamp")], position=full + 1, bucket_start=BUCKET_START)
    assert looked_up == [[]]
    assert (shard.visible_rows_of("lamp"), shard.hidden_rows) == ([], 1)


def repeat(do: Callable[[], object], done: threading.Event) -> None:
    while not done.is_set():
        do()


def test_adding_hiding_and_searching_at_once_end_as_one_after_the_other() -> None:
    rows = [new_row(f"listing-{n % 60}", 1 + n // 60) for n in range(600)]
    bounds = {f"listing-{n}": n % 12 for n in range(60)}
    shard = open_shard(hidden=(hidden := HiddenMap()))

    def hide() -> None:
        for listing, below in bounds.items():
            if hidden.raise_to(listing, below):
                shard.hide(listing, below)

    def search() -> None:
        (found,) = shard.search(vectors(1, 4), 10, RowFilter())
        assert len(found.rows) <= 10

    def look_up() -> None:
        for listing in bounds:
            shard.visible_rows_of(listing)

    done = threading.Event()
    with ThreadPoolExecutor(3) as others:
        running = [others.submit(repeat, do, done) for do in (hide, search, look_up)]
        try:
            for number, row in enumerate(rows, start=1):
                shard.add([row], position=number, bucket_start=BUCKET_START)
        finally:
            done.set()
        for one in running:
            one.result()
    hide()
    expected = {n for n, r in enumerate(rows) if r.row.version >= bounds[r.row.listing_id]}
    visible = {number for listing in bounds for number, _ in shard.visible_rows_of(listing)}
    assert visible == expected
    assert shard.hidden_rows == len(rows) - len(expected)
