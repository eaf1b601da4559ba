"""Search: validate the query, get its vectors, fan out, merge, and judge coverage.

Independent of the transport. Endpoints are asked for more than k listings. They already return
each listing once, so this over-fetch only compensates for listings that another endpoint has in a
newer version, and for the query listing itself. If it is not enough, the endpoints whose truncated
answers may lack hits are asked for twice as many, until none is left.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from services.router import metrics
from services.router.deadline import Deadline
from services.router.embedding import Embedding
from services.router.lookup import look_up, queries_of
from services.router.merge import EndpointHits, MergedHit, merge, truncated
from services.router.no_answer import no_answer_error
from services.router.queries import Query, query_vector, validated
from shashin.codecs.limits import MAX_HITS
from shashin.codecs.ranges import ranges_in, report_in
from shashin.discovery.protocol import Endpoint
from shashin.errors import ShashinError
from shashin.model_space import ModelSpace
from shashin.offsets.answer_coverage import (
    AnswerCoverage,
    KnownPositions,
    answer_coverage,
    merge_reports,
)
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
    """Return how many listings endpoints are asked for in the first round."""
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
    """Until the query vectors are available: embedding a photo, or looking up a listing."""
    fan_out: float = 0.0
    merge: float = 0.0
    total: float = 0.0


@dataclass(frozen=True)
class SearchAnswer:
    """The hits of a search, and its coverage."""

    hits: list[Hit]
    coverage: AnswerCoverage
    failures: list[Failure]
    endpoints: int
    """Endpoints that answered in full."""
    timings: Timings


@dataclass
class _Gathered:
    """The answers so far; a later answer of an endpoint replaces its earlier one."""

    answers: dict[Endpoint, tuple[EndpointHits, index_pb2.IndexSearchResponse]] = field(
        default_factory=dict
    )
    failures: dict[Endpoint, Failure] = field(default_factory=dict)
    other_models: dict[Endpoint, OtherModel] = field(default_factory=dict)
    lookup_failures: dict[Endpoint, Failure] = field(default_factory=dict)
    """Failures of the listing lookup, which precedes the search and does not affect coverage."""
    merged: list[MergedHit] = field(default_factory=list)

    def add(self, results: Round[index_pb2.IndexSearchResponse], count: int) -> None:
        for peer, answer in results.answers:
            self.answers[peer.endpoint] = (_columns(peer.tier, count, answer), answer)
        for failure in results.failures:
            self.failures[failure.endpoint] = failure
        for other in results.other_models:
            self.other_models[other.endpoint] = other

    @property
    def unanswered(self) -> set[Endpoint]:
        """Endpoints whose last call brought no answer; they are not called again."""
        return self.failures.keys() | self.other_models.keys()

    @property
    def searched(self) -> set[Endpoint]:
        """Endpoints that answered in full.

        An endpoint that failed in an over-fetch round may have more hits: the hits it returned
        are used, but its ranges do not count as searched.
        """
        return self.answers.keys() - self.unanswered

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
        """Search; ``caller_seconds`` is the caller's remaining deadline, or None.

        Raises:
            InvalidQuery: when the query is invalid.
            PhotoError: when its photo cannot be used.
            ListingNotFound: when the query listing is not searchable.
            WrongModelRequested: when only embedders of another model respond.
            NoEndpoint: when no endpoint of the model responds.
            DeadlineExceeded: when none responds in time.
        """
        started = time.perf_counter()
        query = validated(query)
        own = query.deadline_ms / 1000 if query.deadline_ms else self._deadline_seconds
        deadline = Deadline.within(own, caller_seconds)
        timings = Timings()
        gathered = _Gathered()
        with self._fleet.hold(*INDEX_ROLES) as held:
            if not held.peers:
                raise self._no_answer_error(gathered, held, deadline)
            queries = await self._queries_of(query, held, deadline, gathered)
            embedded_at = time.perf_counter()
            failpoint("after-embed")
            timings.embed = embedded_at - started
            # Before the first call is sent: see shashin.offsets.answer_coverage.
            known_before = self._positions.snapshot()
            await self._fan_out(query, queries, held.peers, deadline, gathered, timings)
        if not gathered.answers:
            raise self._no_answer_error(gathered, held, deadline)
        merge_started = time.perf_counter()
        coverage = self._coverage(gathered, known_before)
        sources = list(gathered.answers.values())
        hits = [
            Hit(found, sources[found.source][1].hits.attributes[found.position])
            for found in gathered.merged
        ]
        now = time.perf_counter()
        timings.merge += now - merge_started
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

    def _no_answer_error(self, gathered: _Gathered, held: Held, deadline: Deadline) -> ShashinError:
        return no_answer_error(
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
            return await self._embedding.embed_photo(query.photo, deadline)
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

    async def _fan_out(
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
            gathered.add(await self._ask(asking, request, len(queries), deadline), count)
            answered = time.perf_counter()
            failpoint("after-fan-out")
            hits = gathered.hits()
            gathered.merged = merge(hits, query.k, exclude=query.listing_id or "")
            endpoints = list(gathered.answers)
            incomplete = {endpoints[number] for number in truncated(hits, gathered.merged, query.k)}
            asking = [
                peer
                for peer in peers
                if peer.endpoint in incomplete and peer.endpoint not in gathered.unanswered
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
            lambda peer: peer.index.Search(request, timeout=deadline.remaining()),
            method="Search",
            model_id=self._space.model_id,
            check=lambda answer: column_error(answer.hits, queries),
        )

    def _coverage(
        self, gathered: _Gathered, known_before: Mapping[int, Position]
    ) -> AnswerCoverage:
        answers = gathered.complete_answers()
        report = merge_reports(map(report_in, answers))
        self._positions.update(report.positions)
        return answer_coverage(
            (r for answer in answers for r in ranges_in(answer.covered)), report, known_before
        )

    def _observe(self, query: Query, timings: Timings) -> None:
        if query.photo is not None:
            self._seconds["embed"].observe(timings.embed)
        elif query.listing_id is not None:
            self._seconds["lookup"].observe(timings.embed)
        self._seconds["fan_out"].observe(timings.fan_out)
        self._seconds["merge"].observe(timings.merge)
        self._seconds["total"].observe(timings.total)


def column_error(columns: index_pb2.HitColumns, queries: int) -> str | None:
    """Return why an endpoint's columns are malformed, or None."""
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
            f"it returned {len(columns.counts)} of {queries} queries, with {rows} hits in columns "
            f"of {sorted(lengths)} entries"
        )
    if not all(map(math.isfinite, columns.scores)):
        return "it returned scores that are not finite"
    return None


def _columns(tier: str, k: int, answer: index_pb2.IndexSearchResponse) -> EndpointHits:
    hits = answer.hits
    return EndpointHits(
        tier, k, hits.counts, hits.listing_ids, hits.versions, hits.photo_numbers, hits.scores
    )
