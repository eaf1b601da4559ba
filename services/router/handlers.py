"""SearchService: converts between protobuf and the router's own types."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import grpc

from services.router.active import ActiveModel
from services.router.photo_hits import Hit
from services.router.queries import Part, Query
from services.router.search import SearchAnswer
from shashin.codecs.ranges import range_messages, stage_messages
from shashin.offsets.answer_coverage import AnswerCoverage
from shashin.photo_box import Box
from shashin.photo_hash import hex_photo_hash
from shashin.serving.fleet import Failure
from shashin.v1 import search_pb2, search_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class SearchHandlers(search_pb2_grpc.SearchServiceServicer):
    """Implements SearchService; the server maps errors to statuses (shashin.rpc.server)."""

    def __init__(self, active: ActiveModel) -> None:
        self._active = active

    async def Search(  # noqa: N802
        self, request: search_pb2.SearchRequest, context: Context
    ) -> search_pb2.SearchResponse:
        """Search by a photo, a vector or a listing."""
        with self._active.in_use() as model:
            answer = await model.searcher.search(query_of(request), context.time_remaining())
            return answer_message(answer, model.space.model_id, ids_only=request.ids_only)

    async def Locate(  # noqa: N802
        self, request: search_pb2.LocateRequest, context: Context
    ) -> search_pb2.LocateResponse:
        """Return which listings are searchable, and in which tiers."""
        with self._active.in_use() as model:
            located = await model.locator.locate(request.listing_ids, context.time_remaining())
        return search_pb2.LocateResponse(
            locations=[
                search_pb2.Location(
                    listing_id=listing.listing_id,
                    version=listing.version,
                    photo_numbers=listing.photo_numbers,
                    tiers=listing.tiers_in_order,
                )
                for listing in located.listings
            ],
            failed_endpoints=failure_messages(located.failures),
        )

    async def Status(  # noqa: N802
        self, request: search_pb2.StatusRequest, context: Context
    ) -> search_pb2.StatusResponse:
        """Return the last known state of each endpoint, and their combined coverage."""
        del request, context
        model = self._active.current
        message = search_pb2.StatusResponse(
            model_id=model.space.model_id,
            endpoints=[
                search_pb2.EndpointStatus(
                    name=state.endpoint.name,
                    address=state.endpoint.address,
                    tier=state.tier,
                    ready=state.ready,
                    error=state.error,
                    shards=state.shards,
                    rows=state.rows,
                    hidden_rows=state.hidden_rows,
                    covered=range_messages(state.covered),
                    model_id=state.model_id,
                )
                for state in model.watch.states()
            ],
        )
        put_coverage(message.coverage, model.watch.coverage())
        return message


def query_of(request: search_pb2.SearchRequest) -> Query:
    """Return the query of a request."""
    kind = request.WhichOneof("query")
    return Query(
        photo=request.photo if kind == "photo" else None,
        vector=request.vector if kind == "vector" else None,
        listing_id=request.listing_id if kind == "listing_id" else None,
        crop=_box_of(request),
        parts=[_part_of(part) for part in request.parts],
        k=request.k,
        min_score=request.min_score if request.HasField("min_score") else -math.inf,
        each_photo=request.each_photo,
        other_photos=request.other_photos,
        ids_only=request.ids_only,
        excluded_listing_ids=request.excluded_listing_ids,
        row_filter=request.filter,
        deadline_ms=request.deadline_ms,
    )


def _part_of(part: search_pb2.QueryPart) -> Part:
    kind = part.WhichOneof("part")
    return Part(
        photo=part.photo if kind == "photo" else None,
        vector=part.vector if kind == "vector" else None,
        listing_id=part.listing_id if kind == "listing_id" else None,
        crop=_box_of(part),
        weight=part.weight if part.HasField("weight") else 1.0,
    )


def _box_of(owner: search_pb2.SearchRequest | search_pb2.QueryPart) -> Box | None:
    if not owner.HasField("crop"):
        return None
    crop = owner.crop
    return Box(crop.left, crop.top, crop.right, crop.bottom)


def answer_message(
    answer: SearchAnswer, model_id: str, *, ids_only: bool = False
) -> search_pb2.SearchResponse:
    """Return the message of an answer."""
    # Field by field, which takes about half of what keywords take.
    message = search_pb2.SearchResponse()
    put_coverage(message.coverage, answer.coverage)
    message.failed_endpoints.extend(failure_messages(answer.failures))
    message.model_id = model_id
    timings = message.timings
    timings.embed = answer.timings.embed
    timings.fan_out = answer.timings.fan_out
    timings.merge = answer.timings.merge
    timings.total = answer.timings.total
    message.endpoints = answer.endpoints
    message.endpoints_asked = answer.endpoints_asked
    message.notes.extend(answer.notes)
    add = message.hits.add
    for hit in answer.hits:
        _put_hit(add(), hit, ids_only=ids_only)
    return message


def _put_hit(message: search_pb2.Hit, hit: Hit, *, ids_only: bool) -> None:
    """Fill the message of a hit."""
    found, details = hit.found, hit.details
    message.listing_id = found.listing_id
    message.version = found.version
    message.photo_number = found.photo_number
    message.score = found.score
    message.tier = found.tier
    if details is not None and not ids_only:
        message.attributes.CopyFrom(details.attributes)
        message.photo_uri = details.photo_uri
        message.photo_hash = hex_photo_hash(details.photo_hash)
    if hit.others:
        message.other_photos.extend(
            search_pb2.HitPhoto(
                photo_number=photo.photo_number,
                score=photo.score,
                uri="" if ids_only else photo.uri,
                hash="" if ids_only else hex_photo_hash(photo.photo_hash),
            )
            for photo in hit.others
        )


def put_coverage(message: search_pb2.Coverage, coverage: AnswerCoverage) -> None:
    """Fill the message of coverage."""
    message.complete = coverage.complete
    message.missing.extend(range_messages(coverage.missing))
    message.unknown_partitions.extend(coverage.unknown_partitions)
    message.stages.extend(stage_messages(coverage.stages))
    message.end_unknown_seconds = coverage.end_unknown_seconds


def failure_messages(failures: Iterable[Failure]) -> list[search_pb2.FailedEndpoint]:
    """Return the messages of endpoints that failed."""
    return [
        search_pb2.FailedEndpoint(
            name=failure.endpoint.name, address=failure.endpoint.address, error=failure.error
        )
        for failure in failures
    ]
