"""``rows.arrow``: the rows of a sealed shard. Row i belongs to key i of the shard's index."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc

from shashin.errors import CorruptShard, UnknownFormat
from shashin.shards.format.columns import CODED_COLUMNS, Coded, Columns
from shashin.shards.format.open_rows import OpenRows
from shashin.shards.format.row import Row, RowAttributes

ROWS_FILE = "rows.arrow"

FORMAT = b"shashin.rows/1"

_SCHEMA = pa.schema(
    [
        pa.field("listing_id", pa.string(), nullable=False),
        pa.field("listing_hash", pa.uint64(), nullable=False),
        pa.field("listing_group", pa.uint32(), nullable=False),
        pa.field("version", pa.uint64(), nullable=False),
        pa.field("photo_number", pa.uint16(), nullable=False),
        pa.field("category", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("brand", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("price_minor", pa.int64(), nullable=False),
        pa.field("currency", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("listed_at", pa.int64(), nullable=False),
    ],
    metadata={b"format": FORMAT},
)


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
    hashes = np.array([listing_hash(listing_id) for listing_id in listing_ids], dtype=np.uint64)
    coded = {
        name: pa.DictionaryArray.from_arrays(
            pa.array(column.codes), pa.array(list(column.values), pa.string())
        )
        for name, column in ((name, getattr(columns, name)) for name in CODED_COLUMNS)
    }
    table = pa.table(
        {
            "listing_id": pa.array([listing_ids[g] for g in columns.group.tolist()], pa.string()),
            "listing_hash": pa.array(hashes[columns.group]),
            "listing_group": pa.array(columns.group),
            "version": pa.array(columns.version),
            "photo_number": pa.array(rows.photo_numbers()),
            "category": coded["category"],
            "brand": coded["brand"],
            "price_minor": pa.array(columns.price_minor),
            "currency": coded["currency"],
            "listed_at": pa.array(columns.listed_at),
        },
        schema=_SCHEMA,
    ).combine_chunks()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
        # One batch, so that a reader maps each column as one array.
        writer.write_table(table, max_chunksize=max(1, len(rows)))


class SealedRows:
    """Rows of a sealed shard, memory-mapped from ``rows.arrow``.

    Raises:
        UnknownFormat: when this reader does not support the file's format.
        CorruptShard: when it is not a rows file, or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path), "r"))
            found = (reader.schema.metadata or {}).get(b"format")
            if found != FORMAT:
                raise UnknownFormat(
                    f"{path} has rows format {found!r}; this version reads {FORMAT!r}: upgrade "
                    "the reader or seal the shard again"
                )
            if not reader.schema.equals(_SCHEMA):
                raise CorruptShard(
                    f"{path} does not have the columns of {FORMAT!r}: seal the shard again"
                )
            table = reader.read_all().combine_chunks()
        except (pa.ArrowInvalid, OSError) as error:
            raise CorruptShard(f"{path} is not an arrow file: {error}") from error
        self._n = table.num_rows
        self._listing_ids = _only_chunk(table, "listing_id")
        hashes = _numpy(table, "listing_hash")
        self._by_hash = np.argsort(hashes, kind="stable")
        self._sorted_hashes = hashes[self._by_hash]
        self._photo_numbers = _numpy(table, "photo_number")
        coded = {}
        for name in CODED_COLUMNS:
            chunk = _only_chunk(table, name)
            coded[name] = Coded(chunk.indices.to_numpy(), chunk.dictionary.to_pylist())
        group = _numpy(table, "listing_group")
        self._columns = Columns(
            group=group,
            version=_numpy(table, "version"),
            price_minor=_numpy(table, "price_minor"),
            listed_at=_numpy(table, "listed_at"),
            **coded,
        )
        self._listings = int(group.max()) + 1 if self._n else 0

    def __len__(self) -> int:
        return int(self._n)

    @property
    def listings(self) -> int:
        """Number of distinct listings."""
        return self._listings

    def columns(self, count: int) -> Columns:
        """Return the columns; ``count`` must be the number of rows."""
        assert count == self._n
        return self._columns

    def row(self, number: int) -> Row:
        """Return one row."""
        columns = self._columns
        return Row(
            listing_id=self._listing_ids[number].as_py(),
            version=int(columns.version[number]),
            photo_number=int(self._photo_numbers[number]),
            attributes=RowAttributes(
                category=columns.category.values[columns.category.codes[number]],
                brand=columns.brand.values[columns.brand.codes[number]],
                price_minor=int(columns.price_minor[number]),
                currency=columns.currency.values[columns.currency.codes[number]],
                listed_at=int(columns.listed_at[number]),
            ),
        )

    def rows_of(self, listing_id: str) -> npt.NDArray[np.int64]:
        """Return the numbers of a listing's rows."""
        target = np.uint64(listing_hash(listing_id))
        first = np.searchsorted(self._sorted_hashes, target, side="left")
        last = np.searchsorted(self._sorted_hashes, target, side="right")
        candidates = np.sort(self._by_hash[first:last])
        # Hashes can collide, so compare ids.
        return np.array(
            [n for n in candidates if self._listing_ids[int(n)].as_py() == listing_id],
            dtype=np.int64,
        )

    def versions_of(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """Return the versions of rows."""
        versions: npt.NDArray[np.uint64] = self._columns.version[numbers]
        return versions


def _only_chunk(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _numpy(table: pa.Table, name: str) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = _only_chunk(table, name).to_numpy()
    return array
