"""Decodes fetched record batches so that nothing in a log can stop its reader.

The client library raises in the middle of a poll when it cannot decode something: a header name
that is not UTF-8, a damaged record, an unknown codec, a wrong checksum. Such a poll raises again
and again, and may lose records of other partitions that it had already taken. ``TolerantRecords``
replaces the library's decoder in this process and never raises. What it cannot decode it returns as
a value of type ``Undecodable``, in its place in the log.

Formats: https://kafka.apache.org/documentation/#messageformat (magic 2).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.record.control_record import ControlRecord
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy
from aiokafka.record.legacy_records import LegacyRecordBatch

_LENGTH = struct.Struct(">qi")
"""Base offset, and the number of bytes that follow."""
_MAGIC_AT = 16
_MAGIC = 2
_LEGACY = (0, 1)
_LAST_OFFSET_DELTA = 6
"""Its place in the header."""
_MAX_RECORDS = 1_000_000
"""More than a batch has; beyond it, an offset in a damaged header is damaged as well."""
_HEADER = struct.Struct(">qiibIhiqqqhii")
_LOG_APPEND_TIME = 0x08
_MIN_BATCH_BYTES = 17


class Undecodable(bytes):
    """The raw bytes of a record, or of a whole batch, that cannot be decoded."""

    reason: str
    first_offset: int
    """Of the batch, or the record's own."""
    is_batch: bool

    @classmethod
    def of(cls, data: bytes, *, reason: str, first_offset: int, is_batch: bool) -> Undecodable:
        """Return the bytes with the reason."""
        found = cls(data)
        found.reason, found.first_offset, found.is_batch = reason, first_offset, is_batch
        return found


@dataclass(frozen=True)
class DecodedRecord:
    """A record with the attributes that the client library reads."""

    offset: int
    timestamp: int
    """Unix milliseconds."""
    timestamp_type: int
    """0: the producer's clock; 1: the broker's."""
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]] = field(default_factory=list)
    checksum: None = None


class TolerantRecords:
    """The batches of a fetch response: the interface of the client library's ``MemoryRecords``."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._position: int | None = None

    def begin_at(self, offset: int) -> None:
        """Note the offset that was asked for: what is damaged begins there, whatever it says."""
        self._position = offset

    def size_in_bytes(self) -> int:
        """Return the number of bytes fetched."""
        return len(self._data)

    def has_next(self) -> bool:
        """Whether another complete batch follows."""
        return self._end() is not None

    def next_batch(self) -> Any:
        """Return the next batch; None if the rest is incomplete.

        The offset after it is always higher than the one after the batch before: no damage makes a
        reader go back, or read the same again and again.
        """
        end = self._end()
        if end is None:
            return None
        data = self._data[self._at : end]
        self._at = end
        sound = self._sound(data)
        if not isinstance(sound, str):
            self._position = sound.next_offset
            return sound
        first, after = _extent(data, self._position, self._next_whole_base())
        self._position = after
        return DamagedBatch(data, sound, first, after)

    def _sound(self, data: bytes) -> WholeBatch | LegacyBatch | str:
        batch = _whole(data)
        if isinstance(batch, str):
            return batch
        # No checksum has the base offset.
        if self._position is not None and batch.next_offset <= self._position:
            return "its offsets are those of records before it"
        if self._overlaps_next(batch.next_offset):
            return "its offsets are those of records after it"
        return batch

    def _overlaps_next(self, next_offset: int) -> bool:
        if len(self._data) - self._at < _LENGTH.size:
            return False
        (base, _) = _LENGTH.unpack_from(self._data, self._at)
        # Few reach the second comparison, which computes a checksum.
        return base < next_offset and (self._next_whole_base() or next_offset) < next_offset

    def _end(self) -> int | None:
        rest = len(self._data) - self._at
        if rest < _MIN_BATCH_BYTES:
            return None
        _, length = _LENGTH.unpack_from(self._data, self._at)
        size = _LENGTH.size + int(length)
        if size < _MIN_BATCH_BYTES or (size > rest and not self._at):
            # No batch has this length; and a broker returns the first one whole, however large it is.
            # Where the next one begins cannot be known.
            return len(self._data)
        return self._at + size if size <= rest else None

    def _next_whole_base(self) -> int | None:
        """Return the first offset of the batch that follows, if that is sound."""
        end = self._end()
        found = "" if end is None else _whole(self._data[self._at : end])
        return None if isinstance(found, str) else found.base_offset


def _whole(data: bytes) -> WholeBatch | LegacyBatch | str:
    """Return a batch that has the checksum of its bytes; otherwise what is wrong with it."""
    magic = data[_MAGIC_AT]
    # With another format and this one's checksum, only the byte that names the format is damaged.
    if len(data) >= _HEADER.size and (batch := DefaultRecordBatch(data)).validate_crc():
        if batch.is_control_batch and not _has_control_record(data):
            return "it ends a transaction, but does not say how"
        return WholeBatch(data, batch)
    if magic in _LEGACY:
        try:
            return LegacyBatch(data)
        except Exception as error:  # noqa: BLE001 - a codec raises whatever its library does
            return f"{type(error).__name__}: {error}"
    return "its checksum is wrong" if magic == _MAGIC else f"its format is {magic}, not {_MAGIC}"


def _extent(data: bytes, position: int | None, next_base: int | None) -> tuple[int, int]:
    """Return the first offset of a damaged batch and the one after it.

    What its header says counts only as far as it fits to the batches around it.
    """
    base = after = int(_LENGTH.unpack_from(data)[0])
    if len(data) >= _HEADER.size and data[_MAGIC_AT] not in _LEGACY:
        after += int(_HEADER.unpack_from(data)[_LAST_OFFSET_DELTA])
    after += 1
    begin = max(0, base) if position is None else position
    limit = begin + _MAX_RECORDS
    if next_base is not None and begin < next_base:
        limit = next_base
    first = base if begin <= base < limit else begin
    if first < after <= limit:
        return first, after
    return first, limit if limit == next_base else first + 1


class DamagedBatch:
    """Bytes that cannot be decoded, in the place of a batch."""

    producer_id = None
    is_control_batch = False
    is_transactional = False

    def __init__(self, data: bytes, reason: str, first_offset: int, next_offset: int) -> None:
        self._data = data
        self._reason = reason
        self.base_offset = first_offset
        self.next_offset = next_offset

    def validate_crc(self) -> bool:
        """Return True: a wrong checksum shows in what is iterated."""
        return True

    def __iter__(self) -> Iterator[DecodedRecord]:
        """Yield one record, whose value is Undecodable."""
        yield _undecodable(self._data, self._reason, self.base_offset, self.next_offset, 0)


def _undecodable(
    data: bytes, reason: str, first_offset: int, next_offset: int, timestamp: int
) -> DecodedRecord:
    """Return a batch as one record, at its last offset: readers may start in its middle."""
    value = Undecodable.of(data, reason=reason, first_offset=first_offset, is_batch=True)
    return DecodedRecord(next_offset - 1, timestamp, 1, None, value)


class LegacyBatch:
    """A message, or a compressed set of messages, of one of the formats before 2 (magic 0 and 1).

    Brokers have converted these for a decade; one that remains is left to the library.
    """

    producer_id = None
    is_control_batch = False
    is_transactional = False

    def __init__(self, data: bytes) -> None:
        """Decode it.

        Raises:
            Exception: whatever the library raises at it.
        """
        batch = LegacyRecordBatch(data, data[_MAGIC_AT])
        if not batch.validate_crc():
            raise ValueError("its checksum is wrong")
        self._records = list(batch)
        # That of a set is the last one's.
        self.next_offset = int(_LENGTH.unpack_from(data)[0]) + 1
        self.base_offset = int(self._records[0].offset)

    def validate_crc(self) -> bool:
        """Return True: that was done."""
        return True

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the records."""
        return iter(self._records)


class WholeBatch:
    """A batch that arrived as it was written: the interface of the library's ``DefaultRecordBatch``."""

    def __init__(self, data: bytes, batch: DefaultRecordBatch) -> None:
        self._data = data
        self._batch = batch

    @property
    def base_offset(self) -> int:
        """Offset of the first record, also if compaction has removed it."""
        return int(self._batch.base_offset)

    @property
    def next_offset(self) -> int:
        """Offset after the last record."""
        return int(self._batch.next_offset)

    @property
    def producer_id(self) -> int | None:
        """The idempotent producer's id, -1 without one."""
        return int(self._batch.producer_id)

    @property
    def is_control_batch(self) -> bool:
        """Whether it ends a transaction and has no records for readers."""
        return bool(self._batch.is_control_batch)

    @property
    def is_transactional(self) -> bool:
        """Whether it belongs to a transaction."""
        return bool(self._batch.is_transactional)

    def validate_crc(self) -> bool:
        """Return True: that was done."""
        return True

    def __next__(self) -> Any:
        """Return the first record, for control batches."""
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the records; what cannot be decoded has a value of type Undecodable."""
        try:
            return iter(list(self._batch))
        except Exception as error:  # noqa: BLE001 - a codec raises whatever its library does
            return iter(self._salvaged(f"{type(error).__name__}: {error}"))

    def _salvaged(self, reason: str) -> list[DecodedRecord]:
        # The library's other implementation: slower, but it shows what is in it.
        batch = _DefaultRecordBatchPy(self._data)
        try:
            batch._maybe_uncompress()  # noqa: SLF001
            return list(salvage_records(bytes(batch._buffer[batch._pos :]), self._data, reason))  # noqa: SLF001
        except Exception:  # noqa: BLE001
            return [self._undecodable(reason)]

    def _undecodable(self, reason: str) -> DecodedRecord:
        timestamp = max(0, self._batch.max_timestamp)
        return _undecodable(self._data, reason, self.base_offset, self.next_offset, timestamp)


def _has_control_record(data: bytes) -> bool:
    try:
        ControlRecord.parse(next(DefaultRecordBatch(data)).key)
    except Exception:  # noqa: BLE001 - whatever the library raises at
        return False
    return True


def salvage_records(data: bytes, batch: bytes, reason: str) -> Iterator[DecodedRecord]:
    """Yield the records in ``data``, the uncompressed records of ``batch``, one by one.

    A record whose headers alone are damaged keeps its key and value; bytes of header names that are
    not UTF-8 are escaped. One that cannot be read further has an Undecodable value.

    Raises:
        ValueError: when the records' boundaries cannot be found.
    """
    base, _, _, _, _, attributes, _, first_ms, max_ms, *_, count = _HEADER.unpack_from(batch)
    at, next_offset = 0, int(base)
    for _ in range(count):
        length, start = _varint(data, at)
        at = start + length
        if length < 0 or at > len(data):
            raise ValueError(f"a record of {length} bytes in a batch of {len(data)}")
        record = data[start:at]
        timestamp = max_ms
        try:
            delta_ms, pos = _varint(record, 1)
            offset_delta, pos = _varint(record, pos)
            offset = base + offset_delta
            if not attributes & _LOG_APPEND_TIME:
                timestamp = first_ms + delta_ms
            key, pos = _nullable(record, pos)
            value, pos = _nullable(record, pos)
        except ValueError:
            value = Undecodable.of(record, reason=reason, first_offset=next_offset, is_batch=False)
            yield DecodedRecord(next_offset, timestamp, 1, None, value)
            next_offset += 1
        else:
            yield DecodedRecord(offset, timestamp, 1, key, value, list(_headers(record, pos)))
            next_offset = offset + 1


def _headers(record: bytes, pos: int) -> Iterator[tuple[str, bytes | None]]:
    """Yield the headers up to the first that cannot be read."""
    try:
        count, pos = _varint(record, pos)
        for _ in range(count):
            name, pos = _nullable(record, pos)
            value, pos = _nullable(record, pos)
            yield (name or b"").decode(errors="backslashreplace"), value
    except ValueError:
        return


def _nullable(data: bytes, pos: int) -> tuple[bytes | None, int]:
    length, pos = _varint(data, pos)
    if length < 0:
        return None, pos
    if pos + length > len(data):
        raise ValueError(f"{length} bytes at {pos} of {len(data)}")
    return data[pos : pos + length], pos + length


def _varint(data: bytes, pos: int) -> tuple[int, int]:
    """Return the zigzag-encoded integer at ``pos``, and the position after it."""
    number = shift = 0
    while True:
        if pos >= len(data) or shift > 63:
            raise ValueError(f"no integer at {pos} of {len(data)}")
        byte = data[pos]
        pos += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), pos
        shift += 7


class _PartitionRecords(PartitionRecords):  # type: ignore[misc, unused-ignore]
    """Tells the batches of a response which offset was asked for."""

    def __init__(
        self, tp: Any, records: Any, aborted: Any, fetch_offset: int, *others: Any
    ) -> None:
        super().__init__(tp, records, aborted, fetch_offset, *others)
        records.begin_at(fetch_offset)


def install() -> None:
    """Make every consumer of this process decode with ``TolerantRecords``."""
    for name in ("MemoryRecords", "PartitionRecords"):
        assert hasattr(fetcher, name), "aiokafka's fetcher has another structure"
    fetcher.MemoryRecords = TolerantRecords  # type: ignore[misc,assignment,unused-ignore]
    fetcher.PartitionRecords = _PartitionRecords  # type: ignore[misc,assignment,unused-ignore]
