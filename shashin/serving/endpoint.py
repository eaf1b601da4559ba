"""IndexService over the shards that a process serves, for live and sealed tiers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

import grpc

from shashin.codecs.attributes import attributes_message
from shashin.codecs.index import (
    filter_of,
    put_hits,
    queries_of,
    unknown_message,
)
from shashin.codecs.limits import MAX_LISTING_IDS, MAX_NEWEST
from shashin.codecs.pipeline import progress_message
from shashin.codecs.ranges import position_messages, put_log, range_messages
from shashin.errors import DeadlineExceeded, InvalidQuery, NotServing, WrongModelRequested
from shashin.kafka.topics import LISTINGS_HIDDEN
from shashin.metrics import index as metrics
from shashin.model_space import ModelSpace
from shashin.offsets.coverage import LiveReport
from shashin.offsets.progress import PipelineProgress
from shashin.serving.newest import newest_listings
from shashin.serving.recall_monitor import Sample
from shashin.serving.served_shards import ServedShards
from shashin.serving.shared_searches import Found, SharedSearches
from shashin.shards.format.row import Row
from shashin.shards.kinds.protocol import Vectors
from shashin.shards.shard import Shard
from shashin.shards.unknown_choices import unknown_choices
from shashin.v1 import index_pb2, index_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]

_LOADING = f"it has not read {LISTINGS_HIDDEN} to its end yet, and would find hidden rows until then; retry"


class IndexEndpoint(index_pb2_grpc.IndexServiceServicer):
    """Responds from a snapshot of the served shards; searches run in ``executor``, ``workers`` at a time.

    Searches at the same time share turns (shashin.serving.shared_searches). It refuses searches until the hidden listings are loaded. ``report`` returns what the live tier
    knows of the log, as of the shards of one snapshot, and ``progress`` how far the pipeline has come; other
    tiers know nothing. ``sample`` is offered every query.
    """

    def __init__(
        self,
        served: ServedShards,
        *,
        space: ModelSpace,
        tier: str,
        executor: Executor,
        report: Callable[[Sequence[Shard]], LiveReport] = lambda _shards: LiveReport(),
        progress: Callable[[], PipelineProgress | None] = lambda: None,
        workers: int = 2,
        sample: Sample | None = None,
    ) -> None:
        self._served = served
        self._space = space
        self._tier = tier
        self._executor = executor
        self._sample = sample
        self._report = report
        self._progress = progress
        self._searches = SharedSearches(served, executor, report, workers=workers)
        self._search_seconds = metrics.SEARCH_SECONDS.labels(tier)
        of = tier, space.model_id
        metrics.ROWS.labels(*of).set_function(lambda: sum(s.rows for s in served.snapshot().shards))
        metrics.HIDDEN_ROWS.labels(*of).set_function(
            lambda: sum(s.hidden_rows for s in served.snapshot().shards)
        )
        metrics.INDEX_BYTES.labels(*of).set_function(
            lambda: (
                sum(s.index_bytes for s in served.snapshot().shards)
                + served.snapshot().searched.memory_bytes
            )
        )
        metrics.SHARDS.labels(*of).set_function(lambda: len(served.snapshot().shards))

    async def Search(  # noqa: N802
        self, request: index_pb2.IndexSearchRequest, context: Context
    ) -> index_pb2.IndexSearchResponse:
        """Return the nearest visible rows over all shards, with the log ranges searched."""
        started = time.perf_counter()
        self._check_model(request.model_id)
        self._check_serving()
        queries = queries_of(request, self._space.dimensions)
        row_filter = filter_of(request.filter)
        try:
            found = await self._searches.search(
                queries, request.k, row_filter, _seconds_left(request, context)
            )
        except TimeoutError:
            raise DeadlineExceeded(
                f"the {self._tier} tier did not finish its search over "
                f"{len(self._served.snapshot().shards)} shards in time"
            ) from None
        if self._sample is not None:
            self._sample.offer(queries, row_filter)
        searched = found.searched
        # Field by field, which takes half of what keywords take.
        response = index_pb2.IndexSearchResponse()
        response.model_id = self._space.model_id
        response.covered.extend(range_messages(searched.covered))
        response.positions.extend(position_messages(searched.report.positions))
        put_log(response.log, searched.report)
        if unknown := unknown_choices(row_filter, searched.snapshot.shards):
            response.unknown.CopyFrom(unknown_message(unknown))
        await self._put_hits(response.hits, found, request, queries)
        response.seconds = time.perf_counter() - started
        self._search_seconds.observe(response.seconds)
        return response

    async def _put_hits(
        self,
        columns: index_pb2.HitColumns,
        found: Found,
        request: index_pb2.IndexSearchRequest,
        queries: Vectors,
    ) -> None:
        shards, attributes = found.searched.snapshot.shards, request.attributes
        if request.other_photos:
            await asyncio.get_running_loop().run_in_executor(
                self._executor, put_hits, columns, found.parts, shards, attributes, queries
            )
            return
        put_hits(columns, found.parts[:1], shards, attributes)
        for part in found.parts[1:]:
            await asyncio.sleep(0)  # for others: a part takes about a millisecond
            put_hits(columns, [part], shards, attributes)

    async def Describe(  # noqa: N802
        self, request: index_pb2.DescribeRequest, context: Context
    ) -> index_pb2.DescribeResponse:
        """Describe the shards served: none while searches are refused."""
        del request, context
        if not self._served.hidden_loaded:
            return index_pb2.DescribeResponse(
                model_id=self._space.model_id,
                dimensions=self._space.dimensions,
                tier=self._tier,
                not_serving=_LOADING,
            )
        shards = self._served.snapshot().shards
        report = self._report(shards)
        response = index_pb2.DescribeResponse(
            model_id=self._space.model_id,
            dimensions=self._space.dimensions,
            tier=self._tier,
            shards=[
                index_pb2.ShardInfo(
                    shard_id=shard.shard_id,
                    tier=shard.tier,
                    ranges=range_messages(shard.ranges),
                    rows=shard.rows,
                    hidden_rows=shard.hidden_rows,
                    bucket_start=shard.bucket_start or 0,
                    bucket_seconds=shard.bucket_seconds or 0,
                )
                for shard in shards
            ],
            rows=sum(shard.rows for shard in shards),
            hidden_rows=sum(shard.hidden_rows for shard in shards),
            positions=position_messages(report.positions),
            pipeline=progress_message(self._progress()),
        )
        put_log(response.log, report)
        return response

    async def Lookup(  # noqa: N802
        self, request: index_pb2.LookupRequest, context: Context
    ) -> index_pb2.LookupResponse:
        """Return the visible rows of listings."""
        del context
        self._check_model(request.model_id)
        self._check_serving()
        if not 1 <= len(request.listing_ids) <= MAX_LISTING_IDS:
            raise InvalidQuery(
                f"{len(request.listing_ids)} listing ids; expected 1 to {MAX_LISTING_IDS}"
            )
        shards = self._served.snapshot().shards
        rows = await asyncio.get_running_loop().run_in_executor(
            self._executor, _look_up, shards, list(request.listing_ids), request.with_vectors
        )
        return index_pb2.LookupResponse(
            model_id=self._space.model_id, dimensions=self._space.dimensions, rows=rows
        )

    async def Newest(  # noqa: N802
        self, request: index_pb2.NewestRequest, context: Context
    ) -> index_pb2.NewestResponse:
        """Return the listings that were listed last."""
        del context
        self._check_model(request.model_id)
        self._check_serving()
        if not 1 <= request.limit <= MAX_NEWEST:
            raise InvalidQuery(f"limit is {request.limit}; expected 1 to {MAX_NEWEST}")
        shards = self._served.snapshot().shards
        rows = await asyncio.get_running_loop().run_in_executor(
            self._executor, newest_listings, shards, request.limit
        )
        return index_pb2.NewestResponse(
            model_id=self._space.model_id, rows=[_newest_row(row) for row in rows]
        )

    def _check_serving(self) -> None:
        if not self._served.hidden_loaded:
            raise NotServing(f"this endpoint of the {self._tier} tier is starting: {_LOADING}")

    def _check_model(self, model_id: str) -> None:
        if model_id != self._space.model_id:
            raise WrongModelRequested(
                f"model {model_id!r} was requested; this endpoint holds {self._space.model_id!r}"
            )


def _look_up(
    shards: Sequence[Shard], listing_ids: Sequence[str], with_vectors: bool
) -> list[index_pb2.LookupRow]:
    found = []
    for shard in shards:
        for listing_id in listing_ids:
            for number, row in shard.visible_rows_of(listing_id):
                vector = b""
                if with_vectors:
                    vector = shard.vectors([number])[0].astype("<f4").tobytes()
                found.append(
                    index_pb2.LookupRow(
                        listing_id=listing_id,
                        version=row.version,
                        photo_number=row.photo_number,
                        vector=vector,
                    )
                )
    return found


def _newest_row(row: Row) -> index_pb2.NewestRow:
    return index_pb2.NewestRow(
        listing_id=row.listing_id,
        version=row.version,
        photo_number=row.photo_number,
        attributes=attributes_message(row.attributes),
        photo_uri=row.photo_uri,
        photo_hash=row.photo_hash,
    )


def _seconds_left(request: index_pb2.IndexSearchRequest, context: Context) -> float | None:
    left = context.time_remaining()
    if not request.deadline_ms:
        return left
    own = request.deadline_ms / 1000
    return own if left is None else min(left, own)
