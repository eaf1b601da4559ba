"""``rows.arrow``: the rows of a sealed shard. Row i belongs to key i of the shard's index.

Opening it reads nothing but the schema and the values of the coded columns: what a look-up needs is
stored in the order in which it is searched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc

from shashin.errors import CorruptShard, UnknownFormat
from shashin.shards.format.columns import CODED_COLUMNS, Coded, Columns, Identities
from shashin.shards.format.dictionary import Dictionary
from shashin.shards.format.open_rows import OpenRows
from shashin.shards.format.row import Row, RowAttributes, RowDetails

OffsetT = TypeVar("OffsetT", np.int32, np.int64)

FORMAT = b"shashin.rows/2"
"""What is written."""

WITHOUT_PHOTOS = b"shashin.rows/1"
"""The first format: no photo URIs and hashes, and the hash of each row's listing in row order."""

_CODED = pa.dictionary(pa.int32(), pa.string())

_WITHOUT_PHOTOS = [
    pa.field("listing_id", pa.string(), nullable=False),
    pa.field("listing_hash", pa.uint64(), nullable=False),
    pa.field("listing_group", pa.uint32(), nullable=False),
    pa.field("version", pa.uint64(), nullable=False),
    pa.field("photo_number", pa.uint16(), nullable=False),
    pa.field("category", _CODED, nullable=False),
    pa.field("brand", _CODED, nullable=False),
    pa.field("price_minor", pa.int64(), nullable=False),
    pa.field("currency", _CODED, nullable=False),
    pa.field("listed_at", pa.int64(), nullable=False),
]

_OF_ROWS = [
    *(field for field in _WITHOUT_PHOTOS if field.name != "listing_hash"),
    pa.field("photo_uri", pa.large_string(), nullable=False),
    pa.field("photo_hash", pa.uint64(), nullable=False),
]

_OF_LOOK_UPS = [
    pa.field("sorted_listing_hash", pa.uint64(), nullable=False),
    pa.field("sorted_row", pa.uint32(), nullable=False),
]
"""The hash of each row's listing, ascending, and the row that it belongs to."""

_LISTINGS = b"listings"
"""Key of the number of distinct listings in the metadata."""


def listing_hash(listing_id: str) -> int:
    """Return the 64-bit hash that sealed shards use to look up a listing's rows."""
    return int.from_bytes(hashlib.blake2b(listing_id.encode(), digest_size=8).digest(), "little")


def write_rows(rows: OpenRows, path: Path) -> None:
    """Write ``rows.arrow``: the same rows produce the same bytes.

    Raises:
        OSError: when it cannot be written.
    """
    columns = rows.columns(len(rows))
    listing_ids = rows.listing_ids()
    coded = {
        name: pa.DictionaryArray.from_arrays(
            pa.array(column.codes), pa.array(list(column.dictionary.values), pa.string())
        )
        for name, column in ((name, getattr(columns, name)) for name in CODED_COLUMNS)
    }
    starts, uri_bytes = rows.photo_uris()
    arrays = {
        "listing_id": pa.array([listing_ids[g] for g in columns.group.tolist()], pa.string()),
        "listing_group": pa.array(columns.group),
        "version": pa.array(columns.version),
        "photo_number": pa.array(rows.photo_numbers()),
        "price_minor": pa.array(columns.price_minor),
        "listed_at": pa.array(columns.listed_at),
        "photo_uri": pa.LargeStringArray.from_buffers(
            len(rows), pa.py_buffer(starts.tobytes()), pa.py_buffer(uri_bytes.tobytes())
        ),
        "photo_hash": pa.array(rows.photo_hashes()),
        **coded,
    }
    table = pa.table([arrays[field.name] for field in _OF_ROWS], schema=pa.schema(_OF_ROWS))
    _write_table(table, columns.group, listing_ids, path)


def _write_table(
    table: pa.Table, group: npt.NDArray[np.uint32], listing_ids: Sequence[str], path: Path
) -> None:
    """Write rows, given each row's group and each group's listing."""
    of_group = np.fromiter(map(listing_hash, listing_ids), np.uint64, len(listing_ids))
    hashes = of_group[group]
    order = np.argsort(hashes, kind="stable")
    looked_up = (pa.array(hashes[order]), pa.array(order.astype(np.uint32)))
    for field, array in zip(_OF_LOOK_UPS, looked_up, strict=True):
        table = table.append_column(field, array)
    table = table.combine_chunks().replace_schema_metadata(
        {b"format": FORMAT, _LISTINGS: str(len(listing_ids)).encode()}
    )
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        # One batch, so that a reader maps each column as one array.
        writer.write_table(table, max_chunksize=max(1, len(table)))


class SealedRows:
    """Rows of a sealed shard, memory-mapped from ``rows.arrow``.

    Raises:
        UnknownFormat: when this reader does not support the file's format.
        CorruptShard: when it is not a rows file, or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path), "r"))
            metadata = reader.schema.metadata or {}
            found = metadata.get(b"format")
            if found not in {FORMAT, WITHOUT_PHOTOS}:
                raise UnknownFormat(
                    f"{path} has rows format {found!r}; this version reads {WITHOUT_PHOTOS!r} and "
                    f"{FORMAT!r}: upgrade the reader or seal the shard again"
                )
            fields = _WITHOUT_PHOTOS if found == WITHOUT_PHOTOS else [*_OF_ROWS, *_OF_LOOK_UPS]
            if not reader.schema.equals(pa.schema(fields)):
                raise CorruptShard(
                    f"{path} does not have the columns of {found!r}: seal the shard again"
                )
            table = reader.read_all().combine_chunks()
        except (pa.ArrowInvalid, OSError) as error:
            raise CorruptShard(f"{path} is not an arrow file: {error}") from error
        self._table = table
        self._listing_ids = _only_chunk(table, "listing_id")
        self._id_ends, self._id_bytes = _text(self._listing_ids, np.int32)
        self._photo_numbers = _numpy(table, "photo_number")
        coded = {}
        for name in CODED_COLUMNS:
            chunk = _only_chunk(table, name)
            values = Dictionary(chunk.dictionary.to_pylist())
            coded[name] = Coded(chunk.indices.to_numpy(), values)
        self._columns = Columns(
            group=_numpy(table, "listing_group"),
            version=_numpy(table, "version"),
            price_minor=_numpy(table, "price_minor"),
            listed_at=_numpy(table, "listed_at"),
            **coded,
        )
        self._of_codes = [
            (one.dictionary.values, _view(one.codes))
            for one in (coded[name] for name in CODED_COLUMNS)
        ]
        self._prices = _view(self._columns.price_minor)
        self._times = _view(self._columns.listed_at)
        self.sorted_hashes: npt.NDArray[np.uint64]
        """The hash of each row's listing, sorted."""
        if found == WITHOUT_PHOTOS:
            hashes = _numpy(table, "listing_hash")
            self._rows_by_hash = np.argsort(hashes, kind="stable")
            self.sorted_hashes = hashes[self._rows_by_hash]
            self._photos = None
            self._listings = int(self._columns.group.max()) + 1 if len(table) else 0
        else:
            self._rows_by_hash = _numpy(table, "sorted_row")
            self.sorted_hashes = _numpy(table, "sorted_listing_hash")
            starts, uris = _text(_only_chunk(table, "photo_uri"), np.int64)
            hashes = _numpy(table, "photo_hash")
            self._photos = _view(starts), _view(uris), _view(hashes)
            self._listings = _listings_in(metadata, path)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @property
    def listings(self) -> int:
        """Number of distinct listings."""
        return self._listings

    def columns(self, count: int) -> Columns:
        """Return the columns; ``count`` must be the number of rows."""
        assert count == len(self)
        return self._columns

    def row(self, number: int) -> Row:
        """Return one row."""
        attributes, uri, photo_hash = self.details(number)
        return Row(
            listing_id=self.listing_id(number),
            version=self.version(number),
            photo_number=self.photo_number(number),
            attributes=RowAttributes(*attributes),
            photo_uri=uri.decode(),
            photo_hash=photo_hash,
        )

    def listing_id(self, number: int) -> str:
        """Return the listing of a row."""
        start, end = self._id_ends[number], self._id_ends[number + 1]
        return self._id_bytes[start:end].tobytes().decode()

    def version(self, number: int) -> int:
        """Return the version of a row."""
        return int(self._columns.version[number])

    def photo_number(self, number: int) -> int:
        """Return the photo number of a row."""
        return int(self._photo_numbers[number])

    def details(self, number: int) -> RowDetails:
        """Return what of a row is shown with a hit."""
        (categories, category), (brands, brand), (currencies, currency) = self._of_codes
        attributes = (
            categories[category[number]],
            brands[brand[number]],
            self._prices[number],
            currencies[currency[number]],
            self._times[number],
        )
        if self._photos is None:
            return attributes, b"", 0
        starts, uris, hashes = self._photos
        return attributes, bytes(uris[starts[number] : starts[number + 1]]), hashes[number]

    def identities(self, count: int) -> Identities:
        """Return what identifies the rows; ``count`` must be their number."""
        assert count == len(self)
        return Identities(self._id_ends, self._id_bytes, self._columns.version, self._photo_numbers)

    def rows_of(self, listing_id: str) -> npt.NDArray[np.int64]:
        """Return the numbers of a listing's rows."""
        target = np.uint64(listing_hash(listing_id))
        first = np.searchsorted(self.sorted_hashes, target, side="left")
        last = np.searchsorted(self.sorted_hashes, target, side="right")
        candidates = np.sort(self._rows_by_hash[first:last])
        # Hashes can collide, so compare ids.
        return np.array(
            [n for n in candidates if self._listing_ids[int(n)].as_py() == listing_id],
            dtype=np.int64,
        )

    def listing_ids(self) -> list[str]:
        """Return the distinct listings; takes a microsecond per row."""
        ids: list[str] = self._listing_ids.unique().to_pylist()
        return ids

    def versions_of(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """Return the versions of rows."""
        versions: npt.NDArray[np.uint64] = self._columns.version[numbers]
        return versions

    def selected(self, numbers: npt.NDArray[np.int64]) -> pa.Table:
        """Return rows by number, with the columns that a merge keeps."""
        chosen = self._table.take(pa.array(numbers))
        if self._photos is None:
            for field, empty in zip(_OF_ROWS[-2:], ("", 0), strict=True):
                chosen = chosen.append_column(field, pa.array([empty] * len(numbers), field.type))
        return chosen.select([field.name for field in _OF_ROWS]).replace_schema_metadata(None)


class MergedRows:
    """Rows of several shards, to be written as one: each photo of a version once.

    ``kept[i]`` are the numbers of the rows of input i that are in it, in this order: those that
    ``keep[i]`` (n,) flags, except rows that an earlier input, or row, has already.
    """

    def __init__(self, inputs: Sequence[SealedRows], keep: Sequence[npt.NDArray[np.bool_]]) -> None:
        chosen = [np.flatnonzero(flags) for flags in keep]
        table = _concatenated(
            rows.selected(numbers) for rows, numbers in zip(inputs, chosen, strict=True)
        )
        first = _first_of_each(table)
        owner = np.repeat(np.arange(len(inputs)), [len(numbers) for numbers in chosen])
        numbers = np.concatenate([np.zeros(0, np.int64), *chosen])
        if len(first) < len(table):
            table, owner, numbers = table.take(pa.array(first)), owner[first], numbers[first]
        self.kept = [numbers[owner == number] for number in range(len(inputs))]
        self._table = table
        groups = table.column("listing_id").combine_chunks().dictionary_encode()
        self._group = np.asarray(groups.indices.to_numpy(), dtype=np.uint32)
        self._listing_ids: list[str] = groups.dictionary.to_pylist()

    def __len__(self) -> int:
        return len(self._table)

    @property
    def listings(self) -> int:
        """Number of distinct listings."""
        return len(self._listing_ids)

    def write(self, path: Path) -> None:
        """Write ``rows.arrow``.

        Raises:
            OSError: when it cannot be written.
        """
        position = self._table.schema.get_field_index("listing_group")
        table = self._table.set_column(position, _OF_ROWS[position], pa.array(self._group))
        _write_table(table, self._group, self._listing_ids, path)


def _concatenated(tables: Iterable[pa.Table]) -> pa.Table:
    empty = pa.schema(_OF_ROWS).empty_table()
    return pa.concat_tables([empty, *tables]).unify_dictionaries().combine_chunks()


def _first_of_each(table: pa.Table) -> npt.NDArray[np.int64]:
    """Return the first row of each photo of a listing's version, in the order of rows."""
    listing = table.column("listing_id").combine_chunks().dictionary_encode().indices.to_numpy()
    key = np.rec.fromarrays([listing, _numpy(table, "version"), _numpy(table, "photo_number")])
    _, first = np.unique(key, return_index=True)
    return np.sort(first)


def _listings_in(metadata: dict[bytes, bytes], path: Path) -> int:
    try:
        return int(metadata[_LISTINGS])
    except (KeyError, ValueError):
        raise CorruptShard(f"{path} does not say how many listings it has") from None


def _only_chunk(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _text(
    column: pa.Array, offset_type: type[OffsetT]
) -> tuple[npt.NDArray[OffsetT], npt.NDArray[np.uint8]]:
    """Return where each string of a column starts, with the end of the last, and their UTF-8 bytes.

    The offsets of its strings are of the given type: int64 of large ones, otherwise int32.
    """
    _, ends, data = column.buffers()
    if ends is None or ends.size == 0:
        return np.zeros(1, offset_type), np.zeros(0, np.uint8)
    width = np.dtype(offset_type).itemsize
    starts = np.frombuffer(ends, offset_type, len(column) + 1, width * column.offset)
    return starts, np.frombuffer(data if data is not None else b"", np.uint8)


def _view(column: Any) -> memoryview:
    """Return an array as what one number costs a third of."""
    return memoryview(column)


def _numpy(table: pa.Table, name: str) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = _only_chunk(table, name).to_numpy()
    return array
