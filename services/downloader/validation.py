"""Event validation: pure checks whose errors name the invalid field."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from shashin.codecs.limits import MAX_LISTING_ID_BYTES
from shashin.codecs.listing_rules import (
    MAX_PHOTOS,
    attributes_problem,
    listing_id_problem,
    uri_size_problem,
    version_problem,
)
from shashin.errors import InvalidEvent, TooManyPhotos, UnparsableRecord
from shashin.kafka.records import InRecord
from shashin.v1 import events_pb2

KINDS_WITH_PHOTOS = (events_pb2.LISTING_KIND_LISTED, events_pb2.LISTING_KIND_UPDATED)


def parse_event(record: InRecord) -> events_pb2.ListingEvent:
    """Return the valid event in a record of ``listings.events``.

    Raises:
        UnparsableRecord: when the value is not a ListingEvent.
        InvalidEvent: when a field is invalid.
        TooManyPhotos: when it has more than 20 photos.
    """
    event = events_pb2.ListingEvent()
    try:
        event.ParseFromString(record.value)
    except (DecodeError, UnicodeDecodeError) as error:
        raise UnparsableRecord(
            f"{record} is not a ListingEvent ({error}): encode it with proto/shashin/v1/events.proto"
        ) from None
    _check_identity(event, record)
    _check_photos(event, record)
    a = event.attributes
    if problem := attributes_problem(a.category, a.brand, a.price_minor, a.currency):
        raise InvalidEvent(f"{record}, listing {event.listing_id} {problem}")
    return event


def _check_identity(event: events_pb2.ListingEvent, record: InRecord) -> None:
    if not event.listing_id:
        raise InvalidEvent(
            f"{record} has no listing_id: expected 1 to {MAX_LISTING_ID_BYTES} bytes"
        )
    if problem := listing_id_problem(event.listing_id):
        raise InvalidEvent(f"{record} has a listing_id of {problem}")
    if (record.key or b"") != event.listing_id.encode():
        raise InvalidEvent(
            f"{record}, listing {event.listing_id} has the key "
            f"{(record.key or b'').decode(errors='replace')!r}: the key must be the listing id, "
            "so that a listing's events stay in order"
        )
    where = f"{record}, listing {event.listing_id}"
    if problem := version_problem(event.version):
        raise InvalidEvent(f"{where} has version {problem}")
    known = events_pb2.ListingKind.values()
    if event.kind == events_pb2.LISTING_KIND_UNSPECIFIED or event.kind not in known:
        raise InvalidEvent(
            f"{where} has kind {event.kind}; expected LISTED, UPDATED, SOLD or REMOVED"
        )


def _check_photos(event: events_pb2.ListingEvent, record: InRecord) -> None:
    where, count = f"{record}, listing {event.listing_id}", len(event.photo_uris)
    if count > MAX_PHOTOS:
        raise TooManyPhotos(f"{where} has {count} photos; at most {MAX_PHOTOS}")
    if event.kind not in KINDS_WITH_PHOTOS:
        return
    if count == 0:
        raise InvalidEvent(f"{where} has no photos; expected 1 to {MAX_PHOTOS}")
    for number, uri in enumerate(event.photo_uris):
        if problem := uri_size_problem(uri):
            raise InvalidEvent(f"{where}: photo {number} has a URI of {problem}")
