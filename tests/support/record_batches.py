"""Record batches as a broker stores them, whole and damaged."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Literal

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
UNKNOWN_CODEC = 7

_CRC_AT, _ATTRIBUTES_AT = 17, 21

_TRANSACTIONAL, _CONTROL = 0x10, 0x20

Written = tuple[bytes | None, bytes | None, Sequence[tuple[str, bytes | None]]]
"""Key, value and headers."""


def batch_of(records: Sequence[Written], *, codec: int = 0, base_offset: int = 0) -> bytes:
    """Return a batch of records at consecutive offsets, as a producer sends it."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=64 * 1024 * 1024,
    )
    for number, (key, value, headers) in enumerate(records):
        builder.append(number, 1_700_000_000_000 + number, key, value, list(headers))
    batch = bytearray(builder.build())
    struct.pack_into(">q", batch, 0, base_offset)
    return bytes(batch)


def legacy_batch_of(
    records: Sequence[tuple[bytes | None, bytes | None]],
    *,
    magic: Literal[0, 1],
    codec: int = 0,
    base_offset: int = 0,
) -> bytes:
    """Return messages of an old format at consecutive offsets, each with key and value."""
    builder = LegacyRecordBatchBuilder(
        magic=magic, compression_type=codec, batch_size=64 * 1024 * 1024
    )
    for number, (key, value) in enumerate(records):
        # As a broker stores them: absolute, but within a set of format 1 relative to its first one.
        offset = number if codec and magic else base_offset + number
        builder.append(offset, 1_700_000_000_000 + number, key, value)
    batch = bytearray(builder.build())
    if codec:
        struct.pack_into(">q", batch, 0, base_offset + len(records) - 1)
    return bytes(batch)


def replaced(batch: bytes, old: bytes, new: bytes) -> bytes:
    """Return an uncompressed batch with other bytes of the same length and a right checksum."""
    assert len(old) == len(new)
    assert batch.count(old) == 1
    return with_checksum(batch.replace(old, new))


def with_codec(batch: bytes, codec: int) -> bytes:
    """Return the batch with another codec in its attributes."""
    changed = bytearray(batch)
    (attributes,) = struct.unpack_from(">h", changed, _ATTRIBUTES_AT)
    struct.pack_into(">h", changed, _ATTRIBUTES_AT, (attributes & ~7) | codec)
    return with_checksum(bytes(changed))


def as_control_batch(batch: bytes) -> bytes:
    """Return the batch as one that ends a transaction."""
    changed = bytearray(batch)
    (attributes,) = struct.unpack_from(">h", changed, _ATTRIBUTES_AT)
    struct.pack_into(">h", changed, _ATTRIBUTES_AT, attributes | _TRANSACTIONAL | _CONTROL)
    return with_checksum(bytes(changed))


def with_checksum(batch: bytes) -> bytes:
    """Return the batch with the checksum that its bytes have."""
    changed = bytearray(batch)
    struct.pack_into(">I", changed, _CRC_AT, calc_crc32c(bytes(changed[_ATTRIBUTES_AT:])))
    return bytes(changed)
