"""Records of vectors.embedded: which add rows, hide older versions, or are dead-lettered."""

from __future__ import annotations

from typing import Any

from services.indexer.handlers import ParsedBatch, parse_batch
from shashin.kafka.records import InRecord
from shashin.v1 import events_pb2
from tests.support.made_shards import MODEL, SPACE, as_logged, vector_of


def record(offset: int, version: int = 1, *, photos: int = 1, **changes: Any) -> InRecord:
    fields: dict[str, Any] = {
        "listing_id": "lamp",
        "version": version,
        "model_id": MODEL,
        "vectors": [
            events_pb2.PhotoVector(
                photo_number=photo, vector=as_logged(vector_of("lamp", version, photo)).tobytes()
            )
            for photo in range(photos)
        ],
        **changes,
    }
    message = events_pb2.EmbeddedListing(**fields)
    message.occurred_at.seconds = 1234
    return InRecord(
        "vectors.embedded", 3, offset, 7_000 + offset, b"lamp", message.SerializeToString()
    )


def broken(offset: int) -> InRecord:
    return InRecord("vectors.embedded", 3, offset, 7_000 + offset, b"lamp", b"\xff\xff\xff")


def parse(*records: InRecord) -> ParsedBatch:
    return parse_batch(records, SPACE)


def test_every_record_is_returned_in_log_order_with_its_rows() -> None:
    batch = parse(record(4, photos=2), broken(5), record(6, model_id="another"), record(7))
    assert [(r.offset, r.timestamp_ms, len(r.rows)) for r in batch.records] == [
        (4, 7_004, 2),
        (5, 7_005, 0),
        (6, 7_006, 0),
        (7, 7_007, 1),
    ]


def test_a_bad_record_is_dead_lettered_and_the_others_are_parsed() -> None:
    short = record(6, 2, vectors=[events_pb2.PhotoVector(vector=b"short")])
    batch = parse(record(4), broken(5), short, record(7, 2))
    assert [(d.record.offset, d.error.reason, d.step) for d in batch.dead_letters] == [
        (5, "UnparsableRecord", "indexer.parse"),
        (6, "WrongVector", "indexer.parse"),
    ]
    assert set(batch.superseding) == {7}, "records without rows supersede nothing"


def test_one_bad_vector_dead_letters_the_whole_record() -> None:
    good, bad = as_logged(vector_of("lamp")).tobytes(), b"short"
    batch = parse(record(4, vectors=[events_pb2.PhotoVector(vector=v) for v in (good, bad, good)]))
    assert [list(r.rows) for r in batch.records] == [[]]
    assert len(batch.dead_letters) == 1


def test_a_vector_that_is_not_of_unit_length_adds_no_row_and_hides_no_older_version() -> None:
    # A row of length 50 would come first in searches for anything.
    long = (50 * as_logged(vector_of("lamp"))).tobytes()
    batch = parse(record(4, 2, vectors=[events_pb2.PhotoVector(vector=long)]), record(5))
    assert [len(r.rows) for r in batch.records] == [0, 1]
    assert [(d.record.offset, d.error.reason) for d in batch.dead_letters] == [(4, "WrongVector")]
    assert not batch.superseding


def test_records_of_another_model_are_skipped() -> None:
    batch = parse(record(4, 2, model_id="another"))
    assert not batch.superseding
    assert not batch.dead_letters


def test_a_later_version_hides_older_ones_and_version_1_hides_none() -> None:
    batch = parse(record(4, 1), record(5, 2), record(6, 9))
    assert set(batch.superseding) == {5, 6}
    out = batch.superseding[6]
    hidden = events_pb2.HiddenListing.FromString(out.value)
    assert out.topic == "listings.hidden"
    assert (out.key or b"").split(b"\0")[0] == b"lamp"
    assert (hidden.listing_id, hidden.below_version) == ("lamp", 9)
    assert hidden.reason == events_pb2.HIDDEN_REASON_SUPERSEDED
    assert hidden.occurred_at.seconds == 1234


def test_a_version_without_photos_hides_nothing() -> None:
    # Otherwise the listing would vanish: old version hidden, new one not searchable.
    batch = parse(record(4, 2, photos=0))
    assert not batch.superseding
    assert [list(r.rows) for r in batch.records] == [[]]
