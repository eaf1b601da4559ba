"""Decoding record batches: nothing in them can stop a reader."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Literal

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from shashin.kafka.decoding import TolerantRecords, Undecodable, install
from tests.support.record_batches import (
    GZIP,
    LZ4,
    SNAPPY,
    UNKNOWN_CODEC,
    ZSTD,
    Written,
    as_control_batch,
    batch_of,
    legacy_batch_of,
    replaced,
    with_checksum,
    with_codec,
)

BYTES = st.none() | st.binary(max_size=40)
HEADERS = st.lists(st.tuples(st.text(max_size=10), BYTES), max_size=3)
RECORDS = st.lists(st.tuples(BYTES, BYTES, HEADERS), min_size=1, max_size=6)
CODECS = [0, GZIP, SNAPPY, LZ4, ZSTD]

_AFTER_LENGTH = 12
"""Where what a length tells begins."""

LAMP: Written = (b"lamp", b"an event", [("trace", b"1")])
VASE: Written = (b"vase", b"another", [("nme", None)])


def decoded(data: bytes) -> list[tuple[int, bytes | None, bytes | None, Sequence[object]]]:
    records = TolerantRecords(data)
    found: list[tuple[int, bytes | None, bytes | None, Sequence[object]]] = []
    while records.has_next():
        batch = records.next_batch()
        assert batch.validate_crc()
        found += [(r.offset, r.key, r.value, list(r.headers)) for r in batch]
    return found


@given(RECORDS, st.sampled_from(CODECS), st.integers(0, 2**40))
def test_what_the_library_decodes_is_decoded_alike(
    written: list[Written], codec: int, base: int
) -> None:
    data = batch_of(written, codec=codec, base_offset=base)
    expected = []
    library = MemoryRecords(data)
    while (batch := library.next_batch()) is not None:
        expected += [(r.offset, r.key, r.value, list(r.headers)) for r in batch]
    assert decoded(data) == expected
    assert [(key, value) for _, key, value, _ in expected] == [(k, v) for k, v, _ in written]


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_is_decoded(codec: int) -> None:
    assert decoded(batch_of([LAMP, VASE], codec=codec)) == [(0, *LAMP), (1, *VASE)]


def test_a_header_name_that_is_not_utf8_costs_nothing_but_its_name() -> None:
    data = replaced(batch_of([LAMP, VASE, LAMP], base_offset=7), b"nme", b"n\xe9e")
    assert decoded(data) == [
        (7, *LAMP),
        (8, b"vase", b"another", [("n\\xe9e", None)]),
        (9, *LAMP),
    ]


def test_a_damaged_record_is_named_in_its_place_and_the_others_are_decoded() -> None:
    # The value's length becomes more than the record has.
    data = replaced(batch_of([LAMP, VASE, LAMP]), b"vase\x0eanother", b"vase\x7eanother")
    (first, second, third) = decoded(data)
    assert (first, third) == ((0, *LAMP), (2, *LAMP))
    offset, _, value, _ = second
    assert offset == 1
    assert isinstance(value, Undecodable)
    assert not value.is_batch
    assert value.find(b"another") > 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda batch: with_codec(batch, UNKNOWN_CODEC),
        lambda batch: with_checksum(batch[:61] + bytes(len(batch) - 61)),
        lambda batch: batch[:-1] + bytes([batch[-1] ^ 1]),
    ],
    ids=["unknown codec", "no compressed data", "wrong checksum"],
)
def test_an_undecodable_batch_is_one_record_at_its_last_offset(damage: object) -> None:
    bad = damage(batch_of([LAMP, VASE], codec=LZ4, base_offset=10))  # type: ignore[operator]
    good = batch_of([LAMP], base_offset=12)
    (first, second) = decoded(bad + good)
    assert second == (12, *LAMP)
    offset, key, value, _ = first
    assert (offset, key) == (11, None)
    assert isinstance(value, Undecodable)
    assert (value.is_batch, value.first_offset) == (True, 10)
    assert value.reason
    assert bytes(value) == bad


@given(RECORDS, st.data())
def test_no_damage_raises_and_later_batches_are_read(
    written: list[Written], data: st.DataObject
) -> None:
    batch = bytearray(batch_of(written))
    at = data.draw(st.integers(_AFTER_LENGTH, len(batch) - 1))
    batch[at] ^= data.draw(st.integers(1, 255))
    if data.draw(st.booleans()):
        batch = bytearray(with_checksum(bytes(batch)))
    after = batch_of([LAMP], base_offset=2**41)
    assert decoded(bytes(batch) + after)[-1] == (2**41, *LAMP)


def fetched(data: bytes, offset: int) -> tuple[list[Any], int]:
    """Return the records of a response as the client library gives them, and where it fetches next."""
    install()
    topic = TopicPartition("topic", 0)
    records = fetcher.PartitionRecords(
        topic,
        fetcher.MemoryRecords(data),
        [],
        offset,
        None,
        None,
        True,
        fetcher.READ_COMMITTED,
    )
    found = list(records)
    return found, records.next_fetch_offset


@given(RECORDS, st.sampled_from(CODECS), st.integers(0, 5), st.data())
def test_no_damage_moves_a_reader_back_or_past_the_next_batch_or_leaves_it_where_it_is(
    written: list[Written], codec: int, start: int, data: st.DataObject
) -> None:
    begin, end = 1000, 1000 + len(written)
    position = min(begin + start, end - 1)
    before = batch_of([VASE], base_offset=begin - 1)
    batch = bytearray(batch_of(written, codec=codec, base_offset=begin))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(batch) - 1).filter(lambda at: not 8 <= at < 12))
        batch[at] ^= data.draw(st.integers(1, 255))
    after = batch_of([LAMP], base_offset=end)
    for response, offset in (
        (bytes(batch) + after, position),
        (before + bytes(batch) + after, begin - 1),
    ):
        found, reached = fetched(response, offset)
        assert reached == end + 1
        assert (found[-1].offset, found[-1].value) == (end, LAMP[1])
        assert [one.offset for one in found] == sorted(one.offset for one in found)
        assert any(offset <= one.offset < end for one in found)


@pytest.mark.parametrize("zeros", [17, 61, 500])
def test_zeros_instead_of_a_batch_are_named_at_the_offset_that_was_asked_for(zeros: int) -> None:
    found, reached = fetched(batch_of([LAMP], base_offset=998) + bytes(zeros), 998)
    assert [one.offset for one in found] == [998, 999]
    assert isinstance(found[1].value, Undecodable)
    assert reached == 1000
    (one,), reached = fetched(bytes(zeros), 1000)
    assert (one.offset, reached) == (1000, 1001)


def test_a_batch_of_an_unknown_format_is_named_from_wherever_it_is_read() -> None:
    batch = bytearray(batch_of([LAMP, VASE, LAMP], base_offset=5))
    batch[16], batch[-1] = 77, batch[-1] ^ 1
    for offset in (5, 6, 7):
        (one,), reached = fetched(bytes(batch), offset)
        assert (one.offset, reached) == (7, 8)
        assert isinstance(one.value, Undecodable)


@given(st.binary(max_size=300))
def test_whatever_a_broker_sends_it_ends_without_an_error(data: bytes) -> None:
    decoded(data)


@given(RECORDS, st.sampled_from(CODECS), st.data())
def test_no_damage_reaches_into_the_next_batch(
    written: list[Written], codec: int, data: st.DataObject
) -> None:
    batch = bytearray(batch_of(written, codec=codec, base_offset=10))
    at = data.draw(st.integers(_AFTER_LENGTH, len(batch) - 1))
    batch[at] ^= data.draw(st.integers(1, 255))
    records = TolerantRecords(bytes(batch) + batch_of([LAMP], base_offset=10 + len(written)))
    damaged = records.next_batch()
    assert damaged.validate_crc()
    list(damaged)
    assert 10 < damaged.next_offset <= 10 + len(written)


@pytest.mark.parametrize("magic", [0, 1, 3, 77, 255])
def test_a_batch_is_read_though_the_byte_that_names_its_format_is_damaged(magic: int) -> None:
    batch = bytearray(batch_of([LAMP, VASE], base_offset=3))
    batch[16] = magic
    assert decoded(bytes(batch)) == [(3, *LAMP), (4, *VASE)]


@pytest.mark.parametrize(("magic", "codec"), [(0, 0), (0, GZIP), (0, SNAPPY), (1, 0), (1, GZIP)])
def test_old_formats_are_decoded(magic: Literal[0, 1], codec: int) -> None:
    messages = [(b"lamp", b"an event"), (None, b"another"), (b"vase", None)]
    data = legacy_batch_of(messages, magic=magic, codec=codec, base_offset=7)
    assert [found[:3] for found in decoded(data + batch_of([LAMP], base_offset=10))] == [
        *((7 + n, key, value) for n, (key, value) in enumerate(messages)),
        (10, *LAMP[:2]),
    ]


@pytest.mark.parametrize("codec", [0, GZIP])
@given(data=st.data())
def test_no_damage_to_an_old_format_raises(codec: int, data: st.DataObject) -> None:
    message = bytearray(legacy_batch_of([(b"lamp", b"an event")], magic=1, codec=codec))
    at = data.draw(st.integers(_AFTER_LENGTH, len(message) - 1))
    message[at] ^= data.draw(st.integers(1, 255))
    found, after = decoded(bytes(message) + batch_of([LAMP], base_offset=1))
    assert isinstance(found[2], Undecodable)
    assert after == (1, *LAMP)


@pytest.mark.parametrize("length", [-(2**31), -1, 0, 3, 2**31 - 1])
def test_a_length_that_no_batch_has_is_one_undecodable_batch(length: int) -> None:
    batch = bytearray(batch_of([LAMP, VASE], base_offset=5))
    struct.pack_into(">i", batch, 8, length)
    response = bytes(batch) + batch_of([LAMP], base_offset=7)
    ((offset, _, value, _),) = decoded(response)
    assert offset == 6, "the next fetch begins with the next batch"
    assert isinstance(value, Undecodable)
    assert bytes(value) == response


@pytest.mark.parametrize("key", [None, b"", b"\0", b"\0\0\0\0", b"\0\0\0\1\0"])
def test_the_end_of_a_transaction_is_no_record_unless_it_cannot_be_read(key: bytes | None) -> None:
    records = TolerantRecords(as_control_batch(batch_of([(key, b"\0\0\0\0\0\0", [])])))
    batch = records.next_batch()
    assert batch.validate_crc()
    readable = key is not None and len(key) >= 4
    assert batch.is_control_batch == readable
    if not readable:
        (found,) = batch
        assert isinstance(found.value, Undecodable)


def test_an_incomplete_batch_at_the_end_is_left_for_the_next_fetch() -> None:
    whole = batch_of([LAMP])
    records = TolerantRecords(whole + batch_of([VASE], base_offset=1)[:-1])
    assert records.next_batch() is not None
    assert not records.has_next()
    assert TolerantRecords(whole[:10]).next_batch() is None
