"""Records of producers that are not this project's own: every codec, transactions, odd records."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from prometheus_client import REGISTRY

from shashin.errors import UnparsableRecord
from shashin.kafka.log_reader import LogReader
from shashin.kafka.producer import Producer
from shashin.kafka.records import InRecord
from shashin.kafka.topics import IMAGES_DOWNLOADED, LISTINGS_EVENTS
from shashin.runtime.health import Health
from shashin.v1 import events_pb2
from tests.support.copying_stage import GROUP, Copying, consuming
from tests.support.damaged_log import flip, replace_in_batch
from tests.support.foreign_producer import librdkafka, produce, produce_batch
from tests.support.record_batches import batch_of, replaced
from tests.support.rendered_listings import photo_of
from tests.support.shashin_command import shashin
from tests.support.topic_records import records_of
from tests.support.waiting import until

DEAD = f"{LISTINGS_EVENTS}.dlq"


async def values_of(kafka: str, topic: str) -> list[bytes]:
    return sorted(record.value for record in await records_of(kafka, topic))


async def until_copied(kafka: str, *values: bytes) -> None:
    async def copied() -> bool:
        return await values_of(kafka, IMAGES_DOWNLOADED) == sorted(values)

    await until(copied, f"{len(values)} records are copied")


async def dead_letters(kafka: str, count: int) -> Sequence[InRecord]:
    async def written() -> Sequence[InRecord]:
        found = await records_of(kafka, DEAD)
        return found if len(found) >= count else ()

    found: Sequence[InRecord] = await until(written, f"{count} dead letters are written")
    assert len(found) == count
    return found


async def end_offsets(kafka: str) -> dict[int, int]:
    async with LogReader(kafka, LISTINGS_EVENTS, client_id="test-lag") as reader:
        return await reader.end_offsets(await reader.partitions())


async def lag(kafka: str) -> int:
    """Return the group's lag as Kafka's own tools compute it: the log's end less what is committed."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        committed = await admin.list_consumer_group_offsets(GROUP)
    finally:
        await admin.close()
    ends = await end_offsets(kafka)
    return sum(
        end - max(0, committed[TopicPartition(LISTINGS_EVENTS, p)].offset)
        if TopicPartition(LISTINGS_EVENTS, p) in committed
        else end
        for p, end in ends.items()
    )


async def until_no_lag(kafka: str) -> None:
    async def none_left() -> bool:
        return await lag(kafka) == 0

    await until(none_left, "the group has reached the end of the log")


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
async def test_every_codec_is_read(kafka: str, codec: str) -> None:
    values = [b"%04d " % i + b"the same words again " * 40 for i in range(50)]
    produce(
        kafka,
        LISTINGS_EVENTS,
        [{"key": b"%d" % i, "value": value} for i, value in enumerate(values)],
        compression_type=codec,
    )
    async with consuming(kafka, Copying()):
        await until_copied(kafka, *values)


async def test_only_committed_transactions_take_effect_and_the_group_reaches_the_end(
    kafka: str,
) -> None:
    done = librdkafka(kafka, transactional_id="done")
    done.init_transactions(30)
    for value, commit in ((b"committed", True), (b"aborted", False), (b"committed too", True)):
        done.begin_transaction()
        done.produce(LISTINGS_EVENTS, key=b"lamp", value=value, partition=0)
        assert done.flush(30) == 0
        done.commit_transaction(30) if commit else done.abort_transaction(30)
    stage = Copying()
    async with consuming(kafka, stage):
        await until_copied(kafka, b"committed", b"committed too")
        # The log ends with a control record, which no reader ever sees.
        await until_no_lag(kafka)

        before = await end_offsets(kafka)
        done.begin_transaction()
        done.produce(LISTINGS_EVENTS, key=b"lamp", value=b"aborted", partition=0)
        assert done.flush(30) == 0
        done.abort_transaction(30)

        async def ended() -> bool:
            return (await end_offsets(kafka))[0] == before[0] + 2

        await until(ended, "the end of the transaction is in the log")
        # Nothing comes after it that could be read and committed.
        await until_no_lag(kafka)

        still_open = librdkafka(kafka, transactional_id="open")
        still_open.init_transactions(30)
        still_open.begin_transaction()
        still_open.produce(LISTINGS_EVENTS, key=b"vase", value=b"open", partition=1)
        assert still_open.flush(30) == 0
        produce(kafka, LISTINGS_EVENTS, [{"value": b"after", "partition": 0}])
        await until_copied(kafka, b"committed", b"committed too", b"after")
        assert b"open" not in stage.seen
        still_open.commit_transaction(30)
        await until_copied(kafka, b"committed", b"committed too", b"after", b"open")
    assert b"aborted" not in stage.seen


async def test_a_tombstone_is_a_dead_letter_and_not_an_empty_event(kafka: str) -> None:
    produce(
        kafka,
        LISTINGS_EVENTS,
        [
            {"key": b"lamp", "value": None, "partition": 0},
            {"key": b"vase", "value": b"good", "partition": 0},
        ],
    )
    stage = Copying()
    async with consuming(kafka, stage):
        await until_copied(kafka, b"good")
        (dead_letter,) = await dead_letters(kafka, 1)
    assert stage.seen == [b"good"]
    headers = dict(dead_letter.headers)
    assert headers["shashin-error"] == UnparsableRecord.__name__.encode()
    assert b"tombstone" in (headers["shashin-message"] or b"")
    assert (dead_letter.key, headers["shashin-offset"]) == (b"lamp", b"0")


@pytest.mark.parametrize(
    "record",
    [
        {"headers": [("trace", None), ("", b""), ("trace", b"2"), ("ключ", b"\xff\x00")]},
        {"headers": [(f"h{i}", b"x" * 100) for i in range(500)]},
        {"timestamp": 1},
        {"timestamp": 253_402_300_799_000},
        {"key": b""},
        {"key": b"\x00\xff" * 500},
        {"value": b"v" * 900_000},
    ],
    ids=[
        "null and odd headers",
        "many headers",
        "1970",
        "9999",
        "empty key",
        "binary key",
        "large",
    ],
)
async def test_odd_but_valid_records_are_read_and_can_be_dead_lettered(
    kafka: str, record: dict[str, Any], tmp_path: Path
) -> None:
    value = record.get("value", b"good")
    produce(
        kafka,
        LISTINGS_EVENTS,
        [{"value": value, "partition": 0, **record}, {**record, "value": b"bad", "partition": 0}],
    )
    stage = Copying()
    async with consuming(kafka, stage):
        await until_copied(kafka, value)
        (dead_letter,) = await dead_letters(kafka, 1)
        await until_no_lag(kafka)
    # The broker's time, whatever the producer's clock says.
    assert all(abs(ms / 1000 - time.time()) < 600 for ms in stage.timestamps_ms)
    kept = [header for header in dead_letter.headers if not header[0].startswith("shashin-")]
    assert kept == record.get("headers", [])
    assert dead_letter.key == record.get("key")
    listed = await shashin("dlq", "ls", state=tmp_path / "state", env={"SHASHIN_KAFKA": kafka})
    assert "1 open; listings.events: 1 InvalidEvent" in listed.out


async def test_an_event_with_fields_of_a_newer_producer_is_processed_by_what_is_known_of_it(
    kafka: str, start_service: Callable[..., Any], tmp_path: Path
) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(photo_of(7))
    await start_service("downloader", photo_roots=str(tmp_path))
    event = events_pb2.ListingEvent(
        listing_id="lamp",
        version=1,
        kind=events_pb2.LISTING_KIND_LISTED,
        photo_uris=[photo.as_uri()],
    )
    # Field 99, a number, and field 100, a text: no message of this version has them.
    newer = event.SerializeToString() + b"\x98\x06\x07" + b"\xa2\x06\x03new"
    produce(kafka, LISTINGS_EVENTS, [{"key": b"lamp", "value": newer}])

    async def downloaded() -> list[bytes]:
        return await values_of(kafka, IMAGES_DOWNLOADED)

    (value,) = await until(downloaded, "the event is processed")
    listing = events_pb2.DownloadedListing.FromString(value)
    assert (listing.listing_id, listing.version) == ("lamp", 1)
    assert [bool(photo.thumbnail) for photo in listing.photos] == [True]
    assert await records_of(kafka, DEAD) == []


async def test_a_header_name_that_is_not_utf8_stops_nothing(kafka: str) -> None:
    odd = replaced(
        batch_of([(b"lamp", b"odd", [("nme", b"1")]), (b"lamp", b"bad odd", [])]), b"nme", b"n\xe9e"
    )
    produce(kafka, LISTINGS_EVENTS, [{"value": b"before", "partition": 0}])
    await produce_batch(kafka, LISTINGS_EVENTS, 0, odd)
    produce(kafka, LISTINGS_EVENTS, [{"value": b"after", "partition": 0}])
    async with consuming(kafka, Copying()):
        await until_copied(kafka, b"before", b"odd", b"after")
        await until_no_lag(kafka)


async def test_a_batch_that_cannot_be_decoded_waits_for_an_operator_and_is_skipped_by_command(
    kafka: str, producer: Producer, log_folder: Path, tmp_path: Path
) -> None:
    produce(kafka, LISTINGS_EVENTS, [{"value": b"before", "partition": 0}])
    batch = batch_of([(b"lamp", b"damaged %d" % i, []) for i in range(3)])
    await produce_batch(kafka, LISTINGS_EVENTS, 0, batch)
    produce(kafka, LISTINGS_EVENTS, [{"value": b"after", "partition": 0}])
    flip(log_folder / f"{LISTINGS_EVENTS}-0", b"damaged 1")
    health = Health()
    async with consuming(kafka, Copying(), health):
        await until_copied(kafka, b"before")
        part = f"{LISTINGS_EVENTS}[0]"
        (problem,) = await until(
            lambda: [p for p in health.problems() if p.startswith(part)], "the wait is reported"
        )
        assert "shashin dlq skip listings.events:0:1" in problem
        assert metric("shashin_undecodable_batches") == 1
        skipped_before = metric("shashin_skipped_offsets_total")
        # Another partition goes on, and so does the loop.
        produce(kafka, LISTINGS_EVENTS, [{"value": b"elsewhere", "partition": 1}])
        await until_copied(kafka, b"before", b"elsewhere")
        assert health.liveness_problems() == []

        environment = {"SHASHIN_KAFKA": kafka}
        state = tmp_path / "state"
        refused = await shashin(
            "dlq", "skip", "listings.events:0:0", state=state, env=environment, ends_with=2
        )
        assert "can be decoded" in refused.error
        skipped = await shashin(
            "dlq", "skip", "listings.events:0:1", "--json", state=state, env=environment
        )
        assert (skipped.document["first_offset"], skipped.document["last_offset"]) == (1, 3)
        await until_copied(kafka, b"before", b"elsewhere", b"after")
        await until(lambda: not health.problems(), "nothing is wrong any more")
        assert metric("shashin_undecodable_batches") == 0
        assert metric("shashin_skipped_offsets_total") == skipped_before + 3
        await until_no_lag(kafka)
    (dead_letter,) = await dead_letters(kafka, 1)
    assert dict(dead_letter.headers)["shashin-error"] == b"UndecodableBatch"
    assert b"damaged 0" in dead_letter.value


async def test_a_damaged_record_is_a_dead_letter_of_its_raw_bytes_and_the_others_are_read(
    kafka: str, log_folder: Path
) -> None:
    batch = batch_of([(key, value, []) for key, value in ((b"a", b"first"), (b"b", b"another"))])
    produce(kafka, LISTINGS_EVENTS, [{"value": b"before", "partition": 0}])
    await produce_batch(kafka, LISTINGS_EVENTS, 0, batch)
    # The value's length becomes more than the record has.
    folder = log_folder / f"{LISTINGS_EVENTS}-0"
    replace_in_batch(folder, b"b\x0eanother", b"b\x7eanother")
    async with consuming(kafka, Copying()):
        await until_copied(kafka, b"before", b"first")
        (dead_letter,) = await dead_letters(kafka, 1)
        await until_no_lag(kafka)
    assert b"b\x7eanother" in dead_letter.value
    assert dict(dead_letter.headers)["shashin-offset"] == b"2"


def metric(name: str) -> float:
    return REGISTRY.get_sample_value(name, {"topic": LISTINGS_EVENTS}) or 0.0


async def test_an_output_that_is_too_large_is_a_dead_letter_and_the_others_are_written(
    kafka: str,
) -> None:
    def output(record: InRecord) -> bytes:
        return b"x" * 10_000_000 if record.value == b"grows" else record.value

    values = [b"one", b"grows", b"two"]
    produce(kafka, LISTINGS_EVENTS, [{"value": value, "partition": 0} for value in values])

    async def copied() -> bool:
        # One may be there twice: the batch was repeated without the large one.
        return set(await values_of(kafka, IMAGES_DOWNLOADED)) == {b"one", b"two"}

    async with consuming(kafka, Copying(output=output)):
        await until(copied, "the others are copied")
        (dead_letter,) = await dead_letters(kafka, 1)
        await until_no_lag(kafka)
    assert dead_letter.value == b"grows"


async def test_a_dead_letter_of_a_record_that_was_small_only_when_compressed_fits(
    kafka: str,
) -> None:
    large = b"bad" + bytes(16_000_000)
    produce(
        kafka,
        LISTINGS_EVENTS,
        [
            {"key": b"lamp", "value": large, "partition": 0},
            {"key": b"vase", "value": b"good", "partition": 0},
        ],
        compression_type="gzip",
    )
    async with consuming(kafka, Copying()):
        await until_copied(kafka, b"good")
        (dead_letter,) = await dead_letters(kafka, 1)
        await until_no_lag(kafka)
    headers = dict(dead_letter.headers)
    assert headers["shashin-truncated-from"] == b"16000003"
    assert large.startswith(dead_letter.value)
    assert (headers["shashin-partition"], headers["shashin-offset"]) == (b"0", b"0")


async def test_events_with_old_timestamps_are_kept_as_long_as_others(kafka: str) -> None:
    sixty_days_ago = int((time.time() - 60 * 24 * 3600) * 1000)
    produce(
        kafka,
        LISTINGS_EVENTS,
        [{"value": b"%d" % i, "timestamp": sixty_days_ago, "partition": 0} for i in range(20)],
    )
    (first, *_) = await records_of(kafka, LISTINGS_EVENTS)
    # Retention goes by this time.
    assert first.timestamp_ms > sixty_days_ago + 59 * 24 * 3600 * 1000
