"""Converts JSON to queries of the searcher, and its answers to JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np

from services.router.endpoints import EndpointState
from services.router.newest import NewestAnswer, NewListing
from services.router.photo_hits import FoundPhoto, Hit
from services.router.queries import Part, Query
from services.router.rest import schema
from services.router.search import SearchAnswer
from shashin.errors import InvalidQuery
from shashin.offsets.answer_coverage import AnswerCoverage
from shashin.photo_box import Box
from shashin.photo_hash import hex_photo_hash
from shashin.serving.fleet import Failure
from shashin.v1 import events_pb2, index_pb2


def query_of(query: schema.SearchQuery, uploads: Mapping[str, bytes]) -> Query:
    """Return the query of a request; ``uploads`` are the files of its form.

    Raises:
        InvalidQuery: when its photo is given twice, or a part is given as more than one thing.
    """
    photo = uploads.get("photo") if not any(p.upload == "photo" for p in query.parts) else None
    if photo is not None and query.photo is not None:
        raise InvalidQuery("photo is given as a file and in the query; expected one of them")
    return Query(
        photo=query.photo if photo is None else photo,
        vector=_packed(query.vector),
        listing_id=query.listing_id,
        crop=_box(query.crop),
        parts=[_part_of(number, part, uploads) for number, part in enumerate(query.parts)],
        k=query.k,
        min_score=-math.inf if query.min_score is None else query.min_score,
        each_photo=query.each_photo,
        other_photos=query.other_photos,
        ids_only=query.ids_only,
        excluded_listing_ids=query.excluded_listing_ids,
        row_filter=filter_message(query.filter),
        deadline_ms=query.deadline_ms or 0,
    )


def _part_of(number: int, part: schema.QueryPart, uploads: Mapping[str, bytes]) -> Part:
    if part.upload is not None and part.upload not in uploads:
        raise InvalidQuery(
            f"parts[{number}].upload names a file of a form, and the request is none: use photo, in Base64"
        )
    if part.upload is not None and part.photo is not None:
        raise InvalidQuery(f"parts[{number}] has photo and upload; expected one of them")
    return Part(
        photo=part.photo if part.upload is None else uploads[part.upload],
        vector=_packed(part.vector),
        listing_id=part.listing_id,
        crop=_box(part.crop),
        weight=part.weight,
    )


def _packed(vector: list[float] | None) -> bytes | None:
    if vector is None:
        return None
    with np.errstate(over="ignore"):  # what is too large for float32 is refused as not finite
        return np.array(vector, "<f4").tobytes()


def _box(crop: schema.CropBox | None) -> Box | None:
    return None if crop is None else Box(crop.left, crop.top, crop.right, crop.bottom)


def filter_message(row_filter: schema.Filter) -> index_pb2.Filter:
    """Return a filter as its message."""
    return index_pb2.Filter(
        categories=row_filter.categories,
        category_prefixes=row_filter.category_prefixes,
        brands=row_filter.brands,
        prices=[
            index_pb2.PriceRange(
                currency=one.currency, min_minor=one.min_minor, max_minor=one.max_minor
            )
            for one in row_filter.prices
        ],
        listed=[_time_range(one) for one in row_filter.listed],
    )


def _time_range(times: schema.TimeRange) -> index_pb2.TimeRange:
    message = index_pb2.TimeRange()
    if times.since is not None:
        message.since = math.ceil(times.since.timestamp())
    if times.until is not None:
        message.until = math.ceil(times.until.timestamp())
    return message


def answer_of(answer: SearchAnswer, model_id: str, *, ids_only: bool) -> schema.SearchAnswer:
    """Return an answer as JSON has it."""
    return schema.SearchAnswer(
        hits=[_hit(hit, ids_only=ids_only) for hit in answer.hits],
        coverage=coverage_of(answer.coverage),
        failed_endpoints=[failure_of(one) for one in answer.failures],
        model_id=model_id,
        timings=schema.Timings(
            embed=answer.timings.embed,
            fan_out=answer.timings.fan_out,
            merge=answer.timings.merge,
            total=answer.timings.total,
        ),
        endpoints_asked=answer.endpoints_asked,
        endpoints=answer.endpoints,
        notes=list(answer.notes),
    )


def _hit(hit: Hit, *, ids_only: bool) -> schema.Hit:
    found, details = hit.found, None if ids_only else hit.details
    return schema.Hit(
        listing_id=found.listing_id,
        version=found.version,
        photo_number=found.photo_number,
        score=found.score,
        tier=found.tier,
        uri=(details.photo_uri if details else "") or None,
        hash=(hex_photo_hash(details.photo_hash) if details else "") or None,
        attributes=None if details is None else _attributes(details.attributes),
        other_photos=[_photo(photo, ids_only=ids_only) for photo in hit.others],
    )


def _photo(photo: FoundPhoto, *, ids_only: bool) -> schema.Photo:
    return schema.Photo(
        photo_number=photo.photo_number,
        score=photo.score,
        uri=None if ids_only else photo.uri or None,
        hash=None if ids_only else hex_photo_hash(photo.photo_hash) or None,
    )


def _attributes(attributes: events_pb2.Attributes) -> schema.Attributes:
    has_price = bool(attributes.currency)
    listed_at = None
    if attributes.HasField("listed_at"):
        listed_at = datetime.fromtimestamp(attributes.listed_at.seconds, UTC)
    return schema.Attributes(
        category=attributes.category,
        brand=attributes.brand,
        price=schema.Price(amount_minor=attributes.price_minor, currency=attributes.currency)
        if has_price
        else None,
        listed_at=listed_at,
    )


def newest_of(answer: NewestAnswer, model_id: str) -> schema.NewestAnswer:
    """Return the newest listings as JSON has them."""
    return schema.NewestAnswer(
        listings=[_new_listing(one) for one in answer.listings],
        failed_endpoints=[failure_of(one) for one in answer.failures],
        model_id=model_id,
    )


def _new_listing(one: NewListing) -> schema.NewListing:
    row = one.row
    return schema.NewListing(
        listing_id=row.listing_id,
        version=row.version,
        photo_number=row.photo_number,
        tier=one.tier,
        uri=row.photo_uri or None,
        hash=hex_photo_hash(row.photo_hash) or None,
        attributes=_attributes(row.attributes),
    )


def coverage_of(coverage: AnswerCoverage) -> schema.Coverage:
    """Return coverage as JSON has it."""
    return schema.Coverage(
        complete=coverage.complete,
        missing=[
            schema.OffsetRange(
                partition=one.partition, from_offset=one.from_offset, to_offset=one.to_offset
            )
            for one in coverage.missing
        ],
        unknown_partitions=list(coverage.unknown_partitions),
        stages=[
            schema.StageLag(stage=one.stage, records=one.records, seconds=one.seconds)
            for one in coverage.stages
        ],
        end_unknown_seconds=coverage.end_unknown_seconds,
    )


def failure_of(failure: Failure) -> schema.FailedEndpoint:
    """Return an endpoint that failed as JSON has it."""
    endpoint = failure.endpoint
    return schema.FailedEndpoint(name=endpoint.name, address=endpoint.address, error=failure.error)


def endpoint_of(state: EndpointState) -> schema.EndpointStatus:
    """Return the state of an endpoint as JSON has it."""
    return schema.EndpointStatus(
        name=state.endpoint.name,
        address=state.endpoint.address,
        tier=state.tier,
        ready=state.ready,
        error=state.error or None,
        shards=state.shards,
        rows=state.rows,
        hidden_rows=state.hidden_rows,
        model_id=state.model_id or None,
    )
