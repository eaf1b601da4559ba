"""Builds records of ``.dlq`` topics."""

from __future__ import annotations

from shashin.errors import InvalidEvent, ShashinError
from shashin.kafka.dead_letters import DeadLetter
from shashin.kafka.dlq_entries import DlqEntryId, How, resolution_record
from shashin.kafka.producer import OutRecord
from shashin.kafka.records import InRecord
from shashin.kafka.topics import LISTINGS_EVENTS
from shashin.v1 import events_pb2


def event(listing_id: str = "lamp", version: int = 1, photos: int = 2) -> bytes:
    message = events_pb2.ListingEvent(
        listing_id=listing_id,
        version=version,
        kind=events_pb2.LISTING_KIND_LISTED,
        photo_uris=[f"file:///photos/{i}.jpg" for i in range(photos)],
        attributes=events_pb2.Attributes(category="lamps"),
    )
    message.occurred_at.seconds = 1_700_000_000
    return message.SerializeToString()


def stored(record: OutRecord, offset: int, *, timestamp_ms: int = 1000) -> InRecord:
    """Return a record as it is read back at an offset."""
    return InRecord(
        record.topic,
        record.partition or 0,
        offset,
        timestamp_ms,
        record.key,
        record.value,
        record.headers,
    )


def dead_letter(
    offset: int,
    *,
    listing_id: str = "lamp",
    version: int = 1,
    origin: tuple[int, int] = (0, 0),
    topic: str = LISTINGS_EVENTS,
    error: ShashinError | None = None,
    step: str = "downloader.validate",
    photo: int | None = None,
    value: bytes | None = None,
) -> InRecord:
    """Return a dead letter as a service wrote it; ``origin`` is partition and offset."""
    source = InRecord(
        topic,
        *origin,
        0,
        listing_id.encode(),
        event(listing_id, version) if value is None else value,
    )
    written = DeadLetter(
        source,
        error or InvalidEvent(f"{source}, listing {listing_id} is bad"),
        step,
        attempts=3,
        scope="record" if photo is None else "photo",
        photo_number=photo,
    )
    return stored(written.as_record(), offset)


def resolution(of: InRecord, offset: int, how: How = "replayed") -> InRecord:
    """Return the record that resolves a dead letter."""
    entry_id = DlqEntryId(of.topic, of.partition, of.offset)
    return stored(resolution_record(entry_id, how, at_ms=5000), offset)
