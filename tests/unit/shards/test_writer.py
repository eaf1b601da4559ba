"""Writing shards of every index kind, and reading them back."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shashin.errors import CorruptShard
from shashin.offsets.ranges import OffsetRange
from shashin.shards import writer as writer_module
from shashin.shards.format.file_entry import file_entry
from shashin.shards.format.index_spec import IndexSpec
from shashin.shards.format.manifest import MANIFEST_FILE, ROWS_FILE, Manifest
from shashin.shards.format.open_rows import OpenRows
from shashin.shards.format.row import NewRow, Row, RowAttributes
from shashin.shards.format.rows_file import write_rows
from shashin.shards.format.shard_id import shard_id
from shashin.shards.kinds.equal_vectors import Hashes
from shashin.shards.kinds.names import kind_names
from shashin.shards.kinds.protocol import IndexBuilder, IndexKind, Vectors
from shashin.shards.kinds.registry import growing_kind, index_kind
from shashin.shards.kinds.usearch_hnsw import UsearchHnsw
from shashin.shards.row_filter import RowFilter
from shashin.shards.sealed_shard import SealedShard
from shashin.shards.writer import Origin, ShardWriter
from shashin.tiers import DAILY
from tests.support.made_shards import (
    BUCKET_START,
    DIMENSIONS,
    MODEL,
    SPACE,
    listings,
    new_row,
    vector_of,
    vectors,
)

RANGES = (OffsetRange(0, 0, 7), OffsetRange(0, 7, 9), OffsetRange(3, 40, 41))
ORIGIN = Origin(DAILY, BUCKET_START, 86_400, RANGES, "time")

ROWS = st.lists(
    st.builds(
        new_row, st.sampled_from(["lamp", "chair", "mug"]), st.integers(1, 3), st.integers(0, 2)
    ),
    max_size=25,
)


@pytest.fixture(scope="module", params=kind_names())
def kind(request: pytest.FixtureRequest) -> IndexKind:
    return index_kind(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "shards" / "shard"


def written(builder: IndexBuilder, rows: Sequence[NewRow], folder: Path) -> Manifest:
    writer = ShardWriter(SPACE, builder)
    writer.add(rows)
    return writer.finish(folder, ORIGIN)


def test_a_manifest_describes_the_files_of_its_folder(kind: IndexKind, folder: Path) -> None:
    rows = [*listings(0, 9), new_row("listing-3", 2), new_row("listing-3", 2, 1)]
    builder = kind.builder(DIMENSIONS)
    manifest = written(builder, rows, folder)
    assert Manifest.from_json((folder / MANIFEST_FILE).read_bytes(), key=manifest.key) == manifest
    names = {entry.name for entry in manifest.files}
    assert {path.name for path in folder.iterdir()} == names | {MANIFEST_FILE}
    assert len(names) == len(manifest.files) > 1
    assert all(file_entry(folder / entry.name) == entry for entry in manifest.files)
    assert manifest.shard_id == shard_id(MODEL, DAILY, RANGES)
    assert (manifest.rows, manifest.listings) == (11, 9)
    assert (manifest.source_ranges, manifest.cut_reason) == (RANGES, "time")
    assert (manifest.tier, manifest.model_id) == (DAILY, MODEL)
    assert (manifest.bucket_start, manifest.bucket_seconds) == (BUCKET_START, 86_400)
    assert manifest.index_spec == builder.spec
    assert (manifest.index_kind, manifest.dimensions) == (kind.name, DIMENSIONS)

    shard = SealedShard(manifest, folder)
    assert [shard.row(number) for number in range(shard.rows)] == [new.row for new in rows]
    for number, new in enumerate(rows):
        assert shard.vectors([number])[0] == pytest.approx(new.vector, abs=1e-6)
    (found,) = shard.search(vector_of("listing-3", 2, 1)[None, :], 1, RowFilter())
    assert found.rows.tolist() == [10]


@settings(deadline=None, max_examples=15)
@given(ROWS, st.sets(st.integers(0, 25), max_size=4))
def test_the_same_rows_give_the_same_files_in_pieces_or_at_once(
    kind: IndexKind, rows: list[NewRow], cuts: set[int]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        at_once = written(kind.builder(DIMENSIONS), rows, Path(name) / "at-once")
        writer = ShardWriter(SPACE, kind.builder(DIMENSIONS))
        for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(rows)], strict=True):
            writer.add(rows[begin:end])
        in_pieces = writer.finish(Path(name) / "in-pieces", ORIGIN)
    assert replace(in_pieces, created_at=at_once.created_at) == at_once


@settings(deadline=None, max_examples=15)
@given(ROWS)
def test_a_photo_of_a_version_that_is_there_already_is_left_out(
    kind: IndexKind, rows: list[NewRow]
) -> None:
    once = list({new.row: new for new in rows}.values())
    with tempfile.TemporaryDirectory() as name:
        repeated = written(kind.builder(DIMENSIONS), [*rows, *rows], Path(name) / "repeated")
        plain = written(kind.builder(DIMENSIONS), once, Path(name) / "plain")
    assert repeated.rows == len(once)
    assert repeated.files == plain.files


def test_on_row_is_called_before_the_vector_is_searchable() -> None:
    index = growing_kind(kind_names()[0]).growing(DIMENSIONS)
    calls: list[tuple[int, str, int]] = []
    writer = ShardWriter(
        SPACE, index, on_row=lambda number, row: calls.append((number, row.listing_id, len(index)))
    )
    writer.add([new_row("lamp"), new_row("chair"), new_row("lamp")])
    writer.add([new_row("mug")])
    assert calls == [(0, "lamp", 0), (1, "chair", 0), (2, "mug", 2)]


@pytest.mark.parametrize("count", [1, 5, 700])
def test_recall_on_random_vectors_is_near_one(kind: IndexKind, count: int, folder: Path) -> None:
    rows = [
        NewRow(Row(f"listing-{n}", 1, 0, RowAttributes()), vector)
        for n, vector in enumerate(vectors(count, 3))
    ]
    recall = written(kind.builder(DIMENSIONS), rows, folder).recall_at_10
    assert recall is not None
    assert recall >= 0.99


class NoHashes(Hashes):
    """Finds no equal vectors."""

    def numbers(self, hashed: int) -> list[int]:
        return []


def test_recall_is_low_if_many_equal_vectors_hide_the_others(folder: Path) -> None:
    rows = np.concatenate([np.repeat(vectors(1, 6), 3_000, axis=0), vectors(60, 7)])
    recalls = []
    node_per_row = UsearchHnsw().builder(DIMENSIONS)
    node_per_row._nodes_by_hash = NoHashes()
    for index in (node_per_row, UsearchHnsw().builder(DIMENSIONS)):
        listings = [Row(f"listing-{n}", 1, 0, RowAttributes()) for n in range(len(rows))]
        added = [NewRow(row, vector) for row, vector in zip(listings, rows, strict=True)]
        recalls.append(written(index, added, folder).recall_at_10)
    cut, collapsed = recalls
    assert cut is not None
    assert cut < 0.7
    assert collapsed == 1.0


def test_a_shard_without_rows_has_no_recall(kind: IndexKind, folder: Path) -> None:
    manifest = written(kind.builder(DIMENSIONS), [], folder)
    assert (manifest.rows, manifest.listings, manifest.recall_at_10) == (0, 0, None)
    assert SealedShard(manifest, folder).rows == 0


def test_the_order_of_source_ranges_does_not_matter(folder: Path) -> None:
    kind = index_kind("flat-f16")
    manifests = []
    for sources in (RANGES, tuple(reversed(RANGES))):
        writer = ShardWriter(SPACE, kind.builder(DIMENSIONS))
        writer.add(listings(0, 2))
        manifests.append(writer.finish(folder, replace(ORIGIN, sources=sources)))
    assert manifests[0] == replace(manifests[1], created_at=manifests[0].created_at)


def test_old_files_in_the_folder_are_not_part_of_the_shard(kind: IndexKind, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("left-over", MANIFEST_FILE, ROWS_FILE):
        (folder / name).write_bytes(b"of an earlier attempt")
    manifest = written(kind.builder(DIMENSIONS), listings(0, 3), folder)
    assert not (folder / "left-over").exists()
    SealedShard(manifest, folder)


class DamagingBuilder:
    """Builds an index and damages it: drops vectors, or truncates files."""

    def __init__(
        self, builder: IndexBuilder, *, lose_vectors: int = 0, lose_bytes: int = 0
    ) -> None:
        self._builder = builder
        self._lose_vectors = lose_vectors
        self._lose_bytes = lose_bytes

    @property
    def spec(self) -> IndexSpec:
        return self._builder.spec

    def __len__(self) -> int:
        return len(self._builder) + self._lose_vectors

    @property
    def model_files(self) -> Sequence[str]:
        return self._builder.model_files

    def vectors(self, keys: npt.NDArray[np.int64]) -> Vectors:
        return self._builder.vectors(keys)

    def add(self, vectors: Vectors) -> None:
        self._builder.add(vectors[self._lose_vectors :])

    def write(self, folder: Path) -> Sequence[str]:
        names = self._builder.write(folder)
        for name in names if self._lose_bytes else ():
            content = (folder / name).read_bytes()
            (folder / name).write_bytes(content[: -self._lose_bytes])
        return names


def test_an_index_that_lost_a_vector_is_rejected_and_gets_no_manifest(
    kind: IndexKind, folder: Path
) -> None:
    losing = DamagingBuilder(kind.builder(DIMENSIONS), lose_vectors=1)
    with pytest.raises(CorruptShard, match="5 rows and 4 vectors; its manifest says 5"):
        written(losing, listings(0, 5), folder)
    assert not (folder / MANIFEST_FILE).exists()


@pytest.mark.parametrize("lost", [1, 100])
def test_a_truncated_index_file_is_rejected_and_gets_no_manifest(
    kind: IndexKind, folder: Path, lost: int
) -> None:
    cutting = DamagingBuilder(kind.builder(DIMENSIONS), lose_bytes=lost)
    with pytest.raises(CorruptShard):
        written(cutting, listings(0, 5), folder)
    assert not (folder / MANIFEST_FILE).exists()


def test_a_rows_file_that_lost_a_row_is_rejected_and_gets_no_manifest(
    kind: IndexKind, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_fewer(rows: OpenRows, path: Path) -> None:
        fewer = OpenRows()
        for number in range(len(rows) - 1):
            fewer.append(rows.row(number))
        write_rows(fewer, path)

    monkeypatch.setattr(writer_module, "write_rows", write_fewer)
    with pytest.raises(CorruptShard, match="4 rows and 5 vectors; its manifest says 5"):
        written(kind.builder(DIMENSIONS), listings(0, 5), folder)
    assert not (folder / MANIFEST_FILE).exists()


def test_a_folder_that_cannot_be_created_raises_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        written(index_kind("flat-f16").builder(DIMENSIONS), [], tmp_path / "file" / "shard")
