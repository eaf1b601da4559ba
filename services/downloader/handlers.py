"""Processes the records of ``listings.events``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from services.downloader.validation import KINDS_WITH_PHOTOS, parse_event
from services.downloader.versions import NewestVersions
from shashin.errors import NoUsablePhoto, RecordError
from shashin.kafka.dead_letters import DeadLetter
from shashin.kafka.event_time import event_headers
from shashin.kafka.producer import OutRecord
from shashin.kafka.record_spans import in_record_span
from shashin.kafka.records import InRecord
from shashin.kafka.stage import Outcome
from shashin.kafka.topics import (
    IMAGES_DOWNLOADED,
    LISTINGS_HIDDEN,
    MAX_RECORD_BYTES,
    hidden_key,
)
from shashin.metrics import downloader as metrics
from shashin.photo_sources.fetching import FetchedPhoto, PhotoFetcher
from shashin.runtime import tracing
from shashin.runtime.failpoints import failpoint
from shashin.thumbnails.writer import ThumbnailWriter
from shashin.v1 import events_pb2

VALIDATE, FETCH = "downloader.validate", "downloader.fetch"

_REASONS = {
    events_pb2.LISTING_KIND_SOLD: events_pb2.HIDDEN_REASON_SOLD,
    events_pb2.LISTING_KIND_REMOVED: events_pb2.HIDDEN_REASON_REMOVED,
}
_RESERVED_BYTES = 64 * 1024
"""Part of a record reserved for everything but the thumbnails."""


class DownloadStage:
    """Turns listing events into listings with thumbnails, or into hidden listings.

    With ``thumbnails`` these are also written for web pages, without waiting for it.
    """

    def __init__(
        self,
        fetcher: PhotoFetcher,
        versions: NewestVersions,
        thumbnails: ThumbnailWriter | None = None,
    ) -> None:
        self._fetcher = fetcher
        self._versions = versions
        self._thumbnails = thumbnails

    async def process(self, records: Sequence[InRecord]) -> Sequence[Outcome]:
        """Return one outcome per record; the photos of all records are fetched concurrently."""
        # Versions are checked in log order, before the first await.
        events = [self._checked(record) for record in records]
        if (tracer := tracing.tracer()) is None:
            return await asyncio.gather(*map(self._outcome, events, records))
        return await asyncio.gather(
            *(
                in_record_span(tracer, "download", record, partial(self._outcome, event, record))
                for event, record in zip(events, records, strict=True)
            )
        )

    def partitions_lost(self, partitions: Sequence[int]) -> None:
        """Forget the versions seen in these partitions."""
        self._versions.forget(partitions)

    def _checked(self, record: InRecord) -> events_pb2.ListingEvent | RecordError:
        try:
            event = parse_event(record)
            self._versions.check(record, event.listing_id, event.version)
        except RecordError as error:
            return error
        return event

    async def _outcome(
        self, event: events_pb2.ListingEvent | RecordError, record: InRecord
    ) -> Outcome:
        if isinstance(event, RecordError):
            return Outcome(dead_letters=[DeadLetter(record, event, VALIDATE)])
        if event.kind not in KINDS_WITH_PHOTOS:
            metrics.HIDDEN.labels(events_pb2.ListingKind.Name(event.kind)).inc()
            return Outcome(outputs=[hidden_record(event)])
        # A listing that was changed may have other photos under the same URIs.
        confirm = event.kind == events_pb2.LISTING_KIND_UPDATED
        photos = await asyncio.gather(
            *(self._fetcher.fetch(uri, confirm=confirm) for uri in event.photo_uris)
        )
        failpoint("after-decode")
        if self._thumbnails is not None:
            for photo in photos:
                if photo.error is None:
                    self._thumbnails.offer(photo.content_sha256, photo.thumbnail)
        return outcome_of(event, photos, record)


def hidden_record(event: events_pb2.ListingEvent) -> OutRecord:
    """Return the record that hides a sold or removed listing up to this version."""
    hidden = events_pb2.HiddenListing(
        listing_id=event.listing_id,
        below_version=event.version + 1,
        reason=_REASONS[event.kind],
        occurred_at=event.occurred_at,
    )
    return OutRecord(
        LISTINGS_HIDDEN,
        hidden_key(event.listing_id, hidden.below_version),
        hidden.SerializeToString(),
    )


def outcome_of(
    event: events_pb2.ListingEvent, photos: Sequence[FetchedPhoto], record: InRecord
) -> Outcome:
    """Return the listing with its thumbnails, and a DLQ entry for each photo that failed.

    If no photo can be used, the whole record is dead-lettered and an older version of the listing,
    if any, stays searchable. If a photo's source did not respond, a retry may succeed.
    """
    retry_for = next((p.error for p in photos if p.error is not None and p.error.retryable), None)
    failed = [(number, photo) for number, photo in enumerate(photos) if photo.error is not None]
    where = f"{record}, listing {event.listing_id}"
    if len(failed) == len(photos):
        reasons = "; ".join(f"photo {n}: {p.error.reason}: {p.error}" for n, p in failed if p.error)
        error = NoUsablePhoto(f"{where}: none of its {len(photos)} photos is usable: {reasons}")
        return Outcome(dead_letters=[DeadLetter(record, error, FETCH)], retry_for=retry_for)
    value = downloaded_listing(event, photos).SerializeToString()
    most = MAX_RECORD_BYTES - _RESERVED_BYTES
    if len(value) > most:
        size_error = RecordError(
            f"{where}: its thumbnails take {len(value)} bytes; a record holds at most {most}"
        )
        return Outcome(dead_letters=[DeadLetter(record, size_error, FETCH)])
    return Outcome(
        outputs=[
            OutRecord(
                IMAGES_DOWNLOADED,
                event.listing_id.encode(),
                value,
                event_headers(record),
                partition=record.partition,
            )
        ],
        dead_letters=[
            DeadLetter(record, photo.error, FETCH, scope="photo", photo_number=number)
            for number, photo in failed
            if photo.error is not None
        ],
        retry_for=retry_for,
    )


def downloaded_listing(
    event: events_pb2.ListingEvent, photos: Sequence[FetchedPhoto]
) -> events_pb2.DownloadedListing:
    """Return the listing with the outcome of each photo."""
    return events_pb2.DownloadedListing(
        listing_id=event.listing_id,
        version=event.version,
        kind=event.kind,
        occurred_at=event.occurred_at,
        attributes=event.attributes,
        photos=[_photo_message(number, photo) for number, photo in enumerate(photos)],
    )


def _photo_message(number: int, photo: FetchedPhoto) -> events_pb2.DownloadedPhoto:
    message = events_pb2.DownloadedPhoto(
        photo_number=number, uri=photo.uri, content_sha256=photo.content_sha256
    )
    if photo.error is None:
        message.thumbnail = photo.thumbnail
    else:
        message.failure.reason = photo.error.reason
        message.failure.message = photo.error.message
    return message
