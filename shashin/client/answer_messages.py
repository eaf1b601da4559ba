"""Reads the router's messages into the client's values. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC

from shashin.client.answer import (
    Answer,
    Attributes,
    Coverage,
    Endpoint,
    FailedEndpoint,
    Hit,
    Located,
    Location,
    OffsetRange,
    Photo,
    StageLag,
    Status,
    Timings,
)
from shashin.v1 import events_pb2, index_pb2, search_pb2


def answer_of(message: search_pb2.SearchResponse) -> Answer:
    """Return the answer to a search."""
    timings = message.timings
    return Answer(
        hits=tuple(map(_hit, message.hits)),
        coverage=_coverage(message.coverage),
        failed_endpoints=_failed(message.failed_endpoints),
        model_id=message.model_id,
        timings=Timings(timings.embed, timings.fan_out, timings.merge, timings.total),
        endpoints=message.endpoints,
        endpoints_asked=message.endpoints_asked,
        notes=tuple(message.notes),
    )


def located_of(messages: Iterable[search_pb2.LocateResponse]) -> Located:
    """Return what several calls have located."""
    messages = list(messages)
    return Located(
        locations={
            one.listing_id: Location(
                one.listing_id, one.version, tuple(one.photo_numbers), tuple(one.tiers)
            )
            for message in messages
            for one in message.locations
        },
        # An endpoint may have failed in each of them.
        failed_endpoints=tuple(
            dict.fromkeys(one for message in messages for one in _failed(message.failed_endpoints))
        ),
    )


def status_of(message: search_pb2.StatusResponse) -> Status:
    """Return the state of the index."""
    return Status(
        model_id=message.model_id,
        endpoints=tuple(
            Endpoint(
                name=one.name,
                address=one.address,
                tier=one.tier,
                ready=one.ready,
                error=one.error,
                shards=one.shards,
                rows=one.rows,
                hidden_rows=one.hidden_rows,
                covered=_ranges(one.covered),
                model_id=one.model_id,
            )
            for one in message.endpoints
        ),
        coverage=_coverage(message.coverage),
    )


def _hit(message: search_pb2.Hit) -> Hit:
    photo = Photo(message.photo_number, message.score, message.photo_uri, message.photo_hash)
    return Hit(
        listing_id=message.listing_id,
        version=message.version,
        score=message.score,
        tier=message.tier,
        photo=photo,
        other_photos=tuple(
            Photo(one.photo_number, one.score, one.uri, one.hash) for one in message.other_photos
        ),
        attributes=_attributes(message.attributes) if message.HasField("attributes") else None,
    )


def _attributes(message: events_pb2.Attributes) -> Attributes:
    return Attributes(
        category=message.category,
        brand=message.brand,
        price_minor=message.price_minor if message.currency else None,
        currency=message.currency,
        listed_at=(
            message.listed_at.ToDatetime(tzinfo=UTC) if message.HasField("listed_at") else None
        ),
    )


def _coverage(message: search_pb2.Coverage) -> Coverage:
    return Coverage(
        complete=message.complete,
        missing=_ranges(message.missing),
        unknown_partitions=tuple(message.unknown_partitions),
        stages=tuple(
            StageLag(lag.stage, lag.records if lag.HasField("records") else None, lag.seconds)
            for lag in message.stages
        ),
        end_unknown_seconds=message.end_unknown_seconds,
    )


def _ranges(messages: Iterable[index_pb2.OffsetRange]) -> tuple[OffsetRange, ...]:
    return tuple(OffsetRange(one.partition, one.from_offset, one.to_offset) for one in messages)


def _failed(messages: Iterable[search_pb2.FailedEndpoint]) -> tuple[FailedEndpoint, ...]:
    return tuple(FailedEndpoint(one.name, one.address, one.error) for one in messages)
