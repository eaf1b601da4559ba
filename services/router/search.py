"""The search: check the query, get its vectors, ask every endpoint, merge, and judge coverage.

Knows nothing of how a query came in. Endpoints are asked for more listings than wanted. They give
each listing once already, so this over-fetch only has to make up for listings that another
endpoint has in a newer version, and for the listing searched by; if it is not enough, those
endpoints that may hold something back are asked for twice as many, until none does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from services.router import metrics
from services.router.answer_coverage import AnswerCoverage, KnownPositions, answer_coverage, joined
from services.router.deadline import Deadline
from services.router.embedding import Embedding
from services.router.lookup import look_up, queries_of
from services.router.merge import EndpointHits, MergedHit, may_hold_back, merge
from services.router.no_answer import nobody_answered
from services.router.queries import Query, checked, query_vector
from shashin.codecs.limits import MAX_HITS
from shashin.codecs.ranges import positions_in, ranges_in
from shashin.discovery.protocol import Endpoint
from shashin.errors import ShashinError
from shashin.model_space import ModelSpace
from shashin.offsets.coverage import Position
from shashin.runtime.failpoints import failpoint
from shashin.serving.fleet import (
    INDEX_ROLES,
    Failure,
    Fleet,
    Held,
    OtherModel,
    Peer,
    Round,
    ask_all,
)
from shashin.v1 import events_pb2, index_pb2


def initial_k(k: int) -> int:
    """Return how many listings endpoints are asked for at first."""
    return min(k + k // 2 + 8, MAX_HITS)


@dataclass(frozen=True)
class Hit:
    """One listing of an answer."""

    found: MergedHit
    attributes: events_pb2.Attributes


@dataclass
class Timings:
    """Seconds by stage."""

    embed: float = 0.0
    """Until the query's vectors were there: embedding a photo, or looking a listing up."""
    fan_out: float = 0.0
    merge: float = 0.0
    total: float = 0.0


@dataclass(frozen=True)
class SearchAnswer:
    """What a search found, and how much of the log it looked through."""

    hits: list[Hit]
    coverage: AnswerCoverage
    failures: list[Failure]
    endpoints: int
    """How many answered in full."""
    timings: Timings


@dataclass
class _Gathered:
    """What the endpoints have answered so far; one with more hits replaces an earlier one."""

    answers: dict[Endpoint, tuple[EndpointHits, index_pb2.IndexSearchResponse]] = field(
        default_factory=dict
    )
    failures: dict[Endpoint, Failure] = field(default_factory=dict)
    other_models: dict[Endpoint, OtherModel] = field(default_factory=dict)
    lookup_failures: dict[Endpoint, Failure] = field(default_factory=dict)
    """Of the search by a listing, before the search itself: they leave no range unsearched."""
    merged: list[MergedHit] = field(default_factory=list)

    def take(self, asked: Round[index_pb2.IndexSearchResponse], count: int) -> None:
        for peer, answer in asked.answers:
            self.answers[peer.endpoint] = (_columns(peer.tier, count, answer), answer)
        for failure in asked.failures:
            self.failures[failure.endpoint] = failure
        for other in asked.other_models:
            self.other_models[other.endpoint] = other

    @property
    def silent(self) -> set[Endpoint]:
        """Those that gave no answer when they were asked last, so they are asked no more."""
        return self.failures.keys() | self.other_models.keys()

    @property
    def searched(self) -> set[Endpoint]:
        """Those that answered in full.

        One that was silent when it was asked for more may have held back a hit: what it gave is
        shown, but its ranges do not count as searched.
        """
        return self.answers.keys() - self.silent

    def hits(self) -> list[EndpointHits]:
        return [hits for hits, _ in self.answers.values()]

    def complete_answers(self) -> list[index_pb2.IndexSearchResponse]:
        return [self.answers[endpoint][1] for endpoint in self.searched]


class Searcher:
    """Searches the endpoints of one model."""

    def __init__(
        self,
        fleet: Fleet,
        positions: KnownPositions,
        embedding: Embedding,
        *,
        space: ModelSpace,
        deadline_ms: int,
    ) -> None:
        self._fleet = fleet
        self._positions = positions
        self._embedding = embedding
        self._space = space
        self._deadline_seconds = deadline_ms / 1000
        self._seconds = {
            stage: metrics.SEARCH_SECONDS.labels(stage)
            for stage in ("embed", "lookup", "fan_out", "merge", "total")
        }

    async def search(self, query: Query, caller_seconds: float | None) -> SearchAnswer:
        """Search; ``caller_seconds`` is how long the caller will wait, None when it did not say.

        Raises:
            InvalidQuery: when the query cannot be answered by any index.
            PhotoError: when its photo cannot be used.
            ListingNotFound: when the listing searched by is not searchable.
            WrongModelRequested: when only embedders of another model answer.
            NoEndpoint: when no endpoint of the model answers.
            DeadlineExceeded: when none answers in time.
        """
        started = time.perf_counter()
        query = checked(query)
        own = query.deadline_ms / 1000 if query.deadline_ms else self._deadline_seconds
        deadline = Deadline.within(own, caller_seconds)
        timings = Timings()
        gathered = _Gathered()
        with self._fleet.hold(*INDEX_ROLES) as held:
            if not held.peers:
                raise self._nobody(gathered, held, deadline)
            queries = await self._queries_of(query, held, deadline, gathered)
            vectors_at = time.perf_counter()
            failpoint("after-embed")
            timings.embed = vectors_at - started
            # Before the first call is sent: see services.router.answer_coverage.
            known_before = self._positions.snapshot()
            await self._ask_with_over_fetch(query, queries, held.peers, deadline, gathered, timings)
        if not gathered.answers:
            raise self._nobody(gathered, held, deadline)
        merging_at = time.perf_counter()
        coverage = self._coverage(gathered, known_before)
        sources = list(gathered.answers.values())
        hits = [
            Hit(found, sources[found.source][1].hits.attributes[found.position])
            for found in gathered.merged
        ]
        now = time.perf_counter()
        timings.merge += now - merging_at
        timings.total = now - started
        self._observe(query, timings)
        if not coverage.complete:
            metrics.INCOMPLETE_ANSWERS.inc()
        return SearchAnswer(
            hits=hits,
            coverage=coverage,
            failures=list((gathered.lookup_failures | gathered.failures).values()),
            endpoints=len(gathered.searched),
            timings=timings,
        )

    def _nobody(self, gathered: _Gathered, held: Held, deadline: Deadline) -> ShashinError:
        return nobody_answered(
            list(gathered.failures.values()),
            [*held.other_models, *gathered.other_models.values()],
            model_id=self._space.model_id,
            deadline_seconds=deadline.seconds,
        )

    async def _queries_of(
        self, query: Query, held: Held, deadline: Deadline, gathered: _Gathered
    ) -> npt.NDArray[np.float32]:
        if query.vector is not None:
            return query_vector(query.vector, self._space.dimensions)
        if query.photo is not None:
            return await self._embedding.query_of(query.photo, deadline)
        assert query.listing_id is not None
        found, failures = await look_up(
            held,
            [query.listing_id],
            space=self._space,
            with_vectors=True,
            deadline=deadline,
        )
        gathered.lookup_failures = {failure.endpoint: failure for failure in failures}
        return queries_of(query.listing_id, found.get(query.listing_id), failures)

    async def _ask_with_over_fetch(
        self,
        query: Query,
        queries: npt.NDArray[np.float32],
        peers: Sequence[Peer],
        deadline: Deadline,
        gathered: _Gathered,
        timings: Timings,
    ) -> None:
        count = initial_k(query.k)
        packed = queries.astype("<f4").tobytes()
        asking = list(peers)
        while asking:
            started = time.perf_counter()
            request = index_pb2.IndexSearchRequest(
                model_id=self._space.model_id,
                queries=packed,
                dimensions=self._space.dimensions,
                k=count,
                filter=query.row_filter,
            )
            gathered.take(await self._ask(asking, request, len(queries), deadline), count)
            answered = time.perf_counter()
            failpoint("after-fan-out")
            hits = gathered.hits()
            gathered.merged = merge(hits, query.k, leave_out=query.listing_id or "")
            endpoints = list(gathered.answers)
            lacking = {
                endpoints[number] for number in may_hold_back(hits, gathered.merged, query.k)
            }
            asking = [
                peer
                for peer in peers
                if peer.endpoint in lacking and peer.endpoint not in gathered.silent
            ]
            count = min(2 * count, MAX_HITS)
            timings.fan_out += answered - started
            timings.merge += time.perf_counter() - answered
            if asking:
                metrics.OVER_FETCH_ROUNDS.inc()

    async def _ask(
        self,
        peers: Sequence[Peer],
        request: index_pb2.IndexSearchRequest,
        queries: int,
        deadline: Deadline,
    ) -> Round[index_pb2.IndexSearchResponse]:
        return await ask_all(
            peers,
            lambda peer: peer.index.Search(request, timeout=deadline.left()),
            method="Search",
            model_id=self._space.model_id,
            check=lambda answer: fault_of(answer.hits, queries),
        )

    def _coverage(
        self, gathered: _Gathered, known_before: Mapping[int, Position]
    ) -> AnswerCoverage:
        answers = gathered.complete_answers()
        fresh = joined(p for answer in answers for p in positions_in(answer.positions))
        self._positions.learn(fresh)
        return answer_coverage(
            (r for answer in answers for r in ranges_in(answer.covered)), fresh, known_before
        )

    def _observe(self, query: Query, timings: Timings) -> None:
        if query.photo is not None:
            self._seconds["embed"].observe(timings.embed)
        elif query.listing_id is not None:
            self._seconds["lookup"].observe(timings.embed)
        self._seconds["fan_out"].observe(timings.fan_out)
        self._seconds["merge"].observe(timings.merge)
        self._seconds["total"].observe(timings.total)


def fault_of(columns: index_pb2.HitColumns, queries: int) -> str | None:
    """Return what is wrong with an endpoint's columns, or None."""
    rows = sum(columns.counts)
    lengths = {
        len(columns.listing_ids),
        len(columns.versions),
        len(columns.photo_numbers),
        len(columns.scores),
        len(columns.attributes),
    }
    if len(columns.counts) != queries or lengths != {rows}:
        return (
            f"it answered {len(columns.counts)} of {queries} queries, with {rows} hits in columns "
            f"of {sorted(lengths)} entries"
        )
    if not all(map(math.isfinite, columns.scores)):
        return "it answered with scores that are not finite"
    return None


def _columns(tier: str, asked: int, answer: index_pb2.IndexSearchResponse) -> EndpointHits:
    hits = answer.hits
    return EndpointHits(
        tier, asked, hits.counts, hits.listing_ids, hits.versions, hits.photo_numbers, hits.scores
    )
