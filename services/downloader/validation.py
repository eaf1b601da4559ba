"""Event validation: pure checks whose errors name the invalid field."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from shashin.codecs.limits import MAX_LISTING_ID_BYTES
from shashin.errors import InvalidEvent, TooManyPhotos, UnparsableRecord
from shashin.kafka.records import InRecord
from shashin.v1 import events_pb2

MAX_PHOTOS = 20
MAX_TEXT_BYTES = 256
MAX_URI_BYTES = 4096
KINDS_WITH_PHOTOS = (events_pb2.LISTING_KIND_LISTED, events_pb2.LISTING_KIND_UPDATED)
_MAX_VERSION = 2**63 - 2
"""So that ``below_version``, which is one more, fits an int64."""


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
    _check_attributes(event.attributes, f"{record}, listing {event.listing_id}")
    return event


def _check_identity(event: events_pb2.ListingEvent, record: InRecord) -> None:
    if not event.listing_id:
        raise InvalidEvent(
            f"{record} has no listing_id: expected 1 to {MAX_LISTING_ID_BYTES} bytes"
        )
    size = len(event.listing_id.encode())
    if size > MAX_LISTING_ID_BYTES:
        raise InvalidEvent(
            f"{record} has a listing_id of {size} bytes; at most {MAX_LISTING_ID_BYTES}"
        )
    if (record.key or b"") != event.listing_id.encode():
        raise InvalidEvent(
            f"{record}, listing {event.listing_id} has the key "
            f"{(record.key or b'').decode(errors='replace')!r}: the key must be the listing id, "
            "so that a listing's events stay in order"
        )
    where = f"{record}, listing {event.listing_id}"
    if not 1 <= event.version <= _MAX_VERSION:
        raise InvalidEvent(f"{where} has version {event.version}; expected 1 or more")
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
        if len(uri.encode()) > MAX_URI_BYTES:
            raise InvalidEvent(f"{where}: the URI of photo {number} is over {MAX_URI_BYTES} bytes")


def _check_attributes(attributes: events_pb2.Attributes, where: str) -> None:
    for name in ("category", "brand"):
        size = len(str(getattr(attributes, name)).encode())
        if size > MAX_TEXT_BYTES:
            raise InvalidEvent(f"{where} has a {name} of {size} bytes; at most {MAX_TEXT_BYTES}")
    if attributes.price_minor < 0:
        raise InvalidEvent(f"{where} has price_minor {attributes.price_minor}; expected 0 or more")
    currency = attributes.currency
    is_code = len(currency) == 3 and currency.isascii() and currency.isupper()
    if currency and not (is_code and currency.isalpha()):
        raise InvalidEvent(
            f"{where} has currency {currency!r}; expected an ISO 4217 code such as JPY"
        )
    if attributes.price_minor and not currency:
        raise InvalidEvent(f"{where} has a price without a currency: set one, such as JPY")
