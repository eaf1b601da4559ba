"""Rows as they are added, and the same rows read back from rows.arrow."""

from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shashin.errors import CorruptShard, RepositoryError, UnknownFormat
from shashin.shards.format import rows_file as rows_module
from shashin.shards.format.columns import Rows
from shashin.shards.format.open_rows import OpenRows
from shashin.shards.format.row import MAX_PHOTO_NUMBER, NO_TIME, Row, RowAttributes
from shashin.shards.format.rows_file import (
    FORMAT,
    WITHOUT_PHOTOS,
    MergedRows,
    SealedRows,
    listing_hash,
    write_rows,
)

LISTINGS = ["lamp", "chair", "円", "", "a" * 256]
TEXTS = st.sampled_from(["", "shoes", "ü", "円" * 80])
INT64 = st.integers(-(2**63), 2**63 - 1)

ROWS = st.lists(
    st.builds(
        Row,
        listing_id=st.sampled_from(LISTINGS),
        version=st.integers(0, 3) | st.just(2**64 - 1),
        photo_number=st.integers(0, 3) | st.just(MAX_PHOTO_NUMBER),
        attributes=st.builds(
            RowAttributes,
            category=TEXTS,
            brand=TEXTS,
            price_minor=INT64,
            currency=st.sampled_from(["", "JPY"]),
            listed_at=INT64 | st.just(NO_TIME),
        ),
        photo_uri=st.sampled_from(["", "s3://photos/a.jpg", "https://photos.example/円"]),
        photo_hash=st.integers(0, 2**64 - 1),
    ),
    max_size=20,
)


def opened(rows: list[Row]) -> OpenRows:
    made = OpenRows()
    for row in rows:
        made.append(row)
    return made


@contextmanager
def written(rows: list[Row]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.arrow"
        write_rows(opened(rows), path)
        yield path


def assert_holds(found: Rows, rows: list[Row]) -> None:
    assert len(found) == len(rows)
    assert [found.row(number) for number in range(len(rows))] == rows
    assert found.listings == len({row.listing_id for row in rows})
    for listing in [*LISTINGS, "unknown"]:
        numbers = found.rows_of(listing)
        assert numbers.dtype == np.int64
        assert numbers.tolist() == [n for n, r in enumerate(rows) if r.listing_id == listing]
        assert found.versions_of(numbers).tolist() == [rows[n].version for n in numbers]
    group = found.columns(len(rows)).group
    for one, row in enumerate(rows):
        for other in range(one):
            assert (group[one] == group[other]) == (row.listing_id == rows[other].listing_id)


@settings(deadline=None, max_examples=60)
@given(ROWS)
def test_rows_read_back_are_the_rows_that_were_added(rows: list[Row]) -> None:
    assert_holds(opened(rows), rows)
    with written(rows) as path:
        assert_holds(SealedRows(path), rows)


@settings(deadline=None, max_examples=20)
@given(ROWS)
def test_the_same_rows_give_the_same_bytes(rows: list[Row]) -> None:
    with written(rows) as one, written(rows) as other:
        assert one.read_bytes() == other.read_bytes()


@settings(deadline=None, max_examples=60)
@given(st.lists(ROWS, max_size=4), st.integers(0, 1000))
def test_merged_rows_are_each_photo_that_was_kept_once_in_order(
    inputs: list[list[Row]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    keep = [rng.random(len(rows)) < 0.7 for rows in inputs]
    with ExitStack() as stack:
        sealed = [SealedRows(stack.enter_context(written(rows))) for rows in inputs]
        merged = MergedRows(sealed, keep)
        path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "rows.arrow"
        merged.write(path)
        expected: dict[tuple[str, int, int], Row] = {}
        for rows, flags in zip(inputs, keep, strict=True):
            for row in (row for row, flag in zip(rows, flags, strict=True) if flag):
                expected.setdefault((row.listing_id, row.version, row.photo_number), row)
        assert_holds(SealedRows(path), list(expected.values()))
        named = [rows[n] for rows, kept in zip(inputs, merged.kept, strict=True) for n in kept]
        assert named == list(expected.values())
        assert (len(merged), merged.listings) == (
            len(expected),
            len({row.listing_id for row in expected.values()}),
        )


def test_rows_of_the_first_format_are_read_and_merged(tmp_path: Path) -> None:
    attributes = RowAttributes("shoes", "ACME", 5, "JPY", 7)
    rows = [
        Row("lamp", 2, 0, attributes),
        Row("円", 1, 1, attributes),
        Row("lamp", 2, 1, attributes),
    ]
    path = tmp_path / "rows.arrow"
    write_first_format(rows, path)
    assert_holds(SealedRows(path), rows)
    newer = Row("lamp", 3, 0, attributes, photo_uri="s3://photos/lamp", photo_hash=9)
    with written([newer]) as other:
        keep = [np.array([True, False, True]), np.array([True])]
        merged = MergedRows([SealedRows(path), SealedRows(other)], keep)
        merged.write(tmp_path / "merged.arrow")
    assert_holds(SealedRows(tmp_path / "merged.arrow"), [rows[0], rows[2], newer])


def write_first_format(rows: list[Row], path: Path) -> None:
    def coded(values: list[str]) -> pa.Array:
        return pa.array(values, pa.string()).dictionary_encode()

    ids = [row.listing_id for row in rows]
    columns = {
        "listing_id": pa.array(ids, pa.string()),
        "listing_hash": pa.array(map(listing_hash, ids), pa.uint64()),
        "listing_group": pa.array([sorted(set(ids)).index(i) for i in ids], pa.uint32()),
        "version": pa.array([row.version for row in rows], pa.uint64()),
        "photo_number": pa.array([row.photo_number for row in rows], pa.uint16()),
        "category": coded([row.attributes.category for row in rows]),
        "brand": coded([row.attributes.brand for row in rows]),
        "price_minor": pa.array([row.attributes.price_minor for row in rows], pa.int64()),
        "currency": coded([row.attributes.currency for row in rows]),
        "listed_at": pa.array([row.attributes.listed_at for row in rows], pa.int64()),
    }
    schema = pa.schema(
        [pa.field(name, array.type, nullable=False) for name, array in columns.items()],
        {b"format": WITHOUT_PHOTOS},
    )
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(pa.table(list(columns.values()), schema=schema))


@given(ROWS)
def test_a_photo_of_a_version_is_known_once_it_was_added(rows: list[Row]) -> None:
    made = OpenRows()
    for row in rows:
        known = {(r.listing_id, r.version, r.photo_number) for r in map(made.row, range(len(made)))}
        identity = (row.listing_id, row.version, row.photo_number)
        assert made.has(*identity) == (identity in known)
        made.append(row)
        assert made.has(*identity)


def test_columns_grow_and_earlier_reads_stay_valid() -> None:
    rows = [Row(f"listing-{n % 700}", n, n % 5, RowAttributes(str(n % 9))) for n in range(2_500)]
    made = opened(rows[:1_024])
    before = made.columns(len(made))
    for row in rows[1_024:]:
        made.append(row)
    assert before.version.tolist() == list(range(1_024))
    assert made.columns(len(made)).version.tolist() == list(range(2_500))
    assert [made.row(n) for n in range(2_500)] == rows
    assert made.listings == 700


def test_a_row_of_an_open_shard_takes_160_bytes_besides_its_vector() -> None:
    count = 16_384  # a capacity of the columns: nothing is left over
    made = OpenRows()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for n in range(count):
            attributes = RowAttributes(f"category/{n % 200}", f"brand {n % 3_000}", n, "JPY", n)
            made.append(Row(f"listing-{n // 3:012d}", 1, n % 3, attributes))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / count < 160


def test_two_listings_with_the_same_hash_are_distinguished(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Row(listing, n, 0, RowAttributes()) for n, listing in enumerate("abcabca")]
    monkeypatch.setattr(rows_module, "listing_hash", lambda _listing_id: 7)
    with written(rows) as path:
        sealed = SealedRows(path)
        for listing, numbers in {"a": [0, 3, 6], "b": [1, 4], "c": [2, 5], "d": []}.items():
            assert sealed.rows_of(listing).tolist() == numbers


def test_the_hash_of_a_listing_never_changes() -> None:
    # Sealed files contain it: lookups with a different function would find nothing.
    assert listing_hash("lamp") == 7_711_560_049_442_028_586


def arrow_file(path: Path, schema: pa.Schema) -> Path:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(schema.empty_table())
    return path


@pytest.mark.parametrize("metadata", [None, {b"format": b"shashin.rows/3"}])
def test_another_format_is_refused_by_name(
    tmp_path: Path, metadata: dict[bytes, bytes] | None
) -> None:
    path = arrow_file(tmp_path / "rows.arrow", pa.schema([pa.field("a", pa.int8())], metadata))
    with pytest.raises(UnknownFormat, match=r"rows\.arrow has rows format .* reads b'shashin"):
        SealedRows(path)


def test_a_file_with_other_columns_is_refused_by_name(tmp_path: Path) -> None:
    schema = pa.schema([pa.field("listing_id", pa.string())], {b"format": FORMAT})
    with pytest.raises(CorruptShard, match=r"rows\.arrow does not have the columns"):
        SealedRows(arrow_file(tmp_path / "rows.arrow", schema))


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda data: b"ARROW1\0\0" + data))
def test_a_file_that_is_not_arrow_is_rejected_by_name(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.arrow"
        path.write_bytes(data)
        with pytest.raises(CorruptShard, match=r"rows\.arrow is not an arrow file"):
            SealedRows(path)


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_a_file_that_is_cut_short_is_refused(data: st.DataObject) -> None:
    rows = [Row(f"listing-{n}", 1, 0, RowAttributes("shoes")) for n in range(30)]
    with written(rows) as path:
        whole = path.read_bytes()
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        with pytest.raises(RepositoryError):
            SealedRows(path)
