"""Record values decoded for output, without the bytes of photos and vectors."""

from __future__ import annotations

from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from shashin.kafka.dlq_entries import ListingMessage, message_of
from shashin.v1 import events_pb2


def readable_event(topic: str, value: bytes) -> dict[str, Any] | None:
    """Return the fields of a listing's message; None if the value is not a message of the topic."""
    message = message_of(topic, value)
    if message is None:
        return None
    document = {
        "listing_id": message.listing_id,
        "version": message.version,
        "kind": _kind(message.kind),
        "occurred_at": _time(message.occurred_at) if message.HasField("occurred_at") else None,
        "attributes": _attributes(message.attributes),
    }
    return document | _photos(message)


def _photos(message: ListingMessage) -> dict[str, Any]:
    if isinstance(message, events_pb2.ListingEvent):
        return {
            "photos": [
                {"photo_number": number, "uri": uri}
                for number, uri in enumerate(message.photo_uris)
            ]
        }
    if isinstance(message, events_pb2.DownloadedListing):
        return {"photos": [_downloaded(photo) for photo in message.photos]}
    return {
        "model_id": message.model_id,
        "dimensions": message.dimensions,
        "photos": [
            {"photo_number": photo.photo_number, "vector_bytes": len(photo.vector)}
            for photo in message.vectors
        ],
    }


def _downloaded(photo: events_pb2.DownloadedPhoto) -> dict[str, Any]:
    described: dict[str, Any] = {"photo_number": photo.photo_number, "uri": photo.uri}
    if photo.WhichOneof("outcome") == "failure":
        return described | {
            "failure": {"reason": photo.failure.reason, "message": photo.failure.message}
        }
    return described | {"thumbnail_bytes": len(photo.thumbnail)}


def _attributes(attributes: events_pb2.Attributes) -> dict[str, Any]:
    return {
        "category": attributes.category,
        "brand": attributes.brand,
        "price_minor": attributes.price_minor,
        "currency": attributes.currency,
        "listed_at": _time(attributes.listed_at) if attributes.HasField("listed_at") else None,
    }


def _kind(kind: int) -> str:
    # A kind from a newer schema, or from an invalid event, has no name here.
    known: dict[int, str] = {number: name for name, number in events_pb2.ListingKind.items()}
    return known.get(kind, str(kind)).removeprefix("LISTING_KIND_")


def _time(moment: Timestamp) -> str:
    try:
        return moment.ToJsonString()
    except ValueError:
        return f"{moment.seconds} s since 1970 (out of range)"
