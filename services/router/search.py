"""Search: validate the query, get its vectors, fan out, merge, and judge coverage.

Independent of the transport. Endpoints are asked for more than k listings. They already return
each listing once, so this over-fetch only compensates for listings that another endpoint has in a
newer version, and for the query listing itself. If it is not enough, the endpoints whose truncated
answers may lack hits are asked for twice as many, until none is left.

Of the replicas in a group one is asked. If the answers leave a gap in coverage that another replica
holds, it is asked as well before the answer is said to be incomplete.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from services.router.batching import EndpointAnswer, SearchBatches, Searched, Wanted
from services.router.deadline import Deadline
from services.router.embedding import Embedding
from services.router.gaps import Described, holders_of
from services.router.lookup import Lookup, queries_of
from services.router.merge import EndpointHits, MergedHit, merge, truncated
from services.router.no_answer import no_answer_error
from services.router.queries import Query, check_vector, validated
from shashin.codecs.limits import MAX_HITS
from shashin.discovery.protocol import Endpoint
from shashin.errors import ShashinError
from shashin.metrics import router as metrics
from shashin.model_space import ModelSpace
from shashin.offsets.answer_coverage import (
    AnswerCoverage,
    KnownPositions,
    answer_coverage,
    merge_reports,
)
from shashin.offsets.coverage import Position
from shashin.runtime.failpoints import failpoint
from shashin.serving.fleet import INDEX_ROLES, Failure, Fleet, Held, OtherModel, Peer
from shashin.serving.replica_calls import GroupOutcome, ReplicaCalls, Replicas, groups_of
from shashin.v1 import events_pb2

_SPARE_ATTRIBUTES = 4
"""Hits beyond k whose attributes are asked for as well: some of the first may turn out to be outdated."""

_NO_ATTRIBUTES = events_pb2.Attributes()

_REMEMBERED_COVERAGES = 4
"""The calls of that many searches with different ones are remembered, for others that shared them."""


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
class _Source:
    """Replicas of one group that are asked for one answer.

    A later answer replaces the one before, also if another replica gives it: they hold the same
    listings, which would count twice.
    """

    replicas: Replicas
    peer: Peer | None = None
    """The one that answered last."""
    answer: EndpointAnswer | None = None
    hits: EndpointHits | None = None
    failures: list[Failure] = field(default_factory=list)
    """Why the last call brought no answer; the source is not asked again then."""
    other_models: list[OtherModel] = field(default_factory=list)
    tried: set[Endpoint] = field(default_factory=set)
    """Those that answered, failed or hold another model."""

    def take(self, outcome: GroupOutcome[EndpointAnswer], k: int) -> None:
        """Take the outcome of a call for ``k`` hits per query."""
        self.tried |= outcome.tried
        if outcome.answer is None:
            self.failures, self.other_models = outcome.failures, outcome.other_models
            return
        self.peer, self.answer = outcome.answer
        self.hits = EndpointHits(self.peer.tier, k, self.answer.hits)
        self.replicas = replace(self.replicas, preferred=self.peer)

    @property
    def searched(self) -> bool:
        """Whether it answered in full.

        A source that failed in an over-fetch round may have more hits: the hits it returned are used,
        but its ranges do not count as searched.
        """
        return self.answer is not None and not self.failures and not self.other_models


@dataclass
class _Gathered:
    """The answers so far."""

    sources: list[_Source] = field(default_factory=list)
    lookup_failures: dict[Endpoint, Failure] = field(default_factory=dict)
    """Failures of the listing lookup, which precedes the search and does not affect coverage."""
    merged: list[MergedHit] = field(default_factory=list)
    """Their ``source`` is an index of ``answered``."""
    answered: list[_Source] = field(default_factory=list)
    """The sources whose hits count, as of the last merge."""
    attributes: list[events_pb2.Attributes | None] = field(default_factory=list)
    """Of the merged hits; None if they are not known."""

    def failures(self) -> dict[Endpoint, Failure]:
        return {failure.endpoint: failure for source in self.sources for failure in source.failures}

    def other_models(self) -> list[OtherModel]:
        return [other for source in self.sources for other in source.other_models]

    def complete_answers(self) -> tuple[Searched, ...]:
        """What the sources that answered in full have searched."""
        return tuple(s.answer.searched for s in self.sources if s.answer is not None and s.searched)

    def found(self) -> list[Hit]:
        """The merged hits."""
        described = zip(self.merged, self.attributes, strict=True)
        return [Hit(hit, attributes or _NO_ATTRIBUTES) for hit, attributes in described]

    def describe(self) -> list[_Source]:
        """Look the attributes of the merged hits up; returns the sources that were not asked for some."""
        self.attributes = [self._attributes_of(hit) for hit in self.merged]
        if None not in self.attributes:
            return []
        described = zip(self.merged, self.attributes, strict=True)
        numbers = {hit.source for hit, attributes in described if attributes is None}
        return [source for number, source in enumerate(self.answered) if number in numbers]

    def merge(self, query: Query) -> list[EndpointHits]:
        """Merge the hits of all answers; returns these."""
        self.answered = [source for source in self.sources if source.answer is not None]
        hits = [source.hits for source in self.answered if source.hits is not None]
        self.merged = merge(hits, query.k, exclude=query.listing_id or "")
        return hits

    def _attributes_of(self, hit: MergedHit) -> events_pb2.Attributes | None:
        hits = self.answered[hit.source].hits
        assert hits is not None
        return hits.lists.attributes_of(hit.position)

    def tried(self) -> set[Endpoint]:
        return {endpoint for source in self.sources for endpoint in source.tried}


@dataclass(frozen=True)
class _Judged:
    """The coverage of some answers."""

    answers: tuple[Searched, ...]
    known_before: Mapping[int, Position]
    coverage: AnswerCoverage


@dataclass(frozen=True)
class _Asking:
    """One search, as its sources are asked."""

    query: Query
    packed: bytes
    """The query vectors, (queries, dimensions) little-endian float32."""
    queries: int
    held: Held
    deadline: Deadline
    timings: Timings
    spare: int
    """Hits beyond k whose attributes are asked for."""


class Searcher:
    """Searches the endpoints of one model."""

    def __init__(
        self,
        fleet: Fleet,
        positions: KnownPositions,
        embedding: Embedding,
        lookup: Lookup,
        calls: ReplicaCalls,
        batches: SearchBatches,
        held_ranges: Callable[[], Described],
        *,
        space: ModelSpace,
        deadline_ms: int,
    ) -> None:
        self._fleet = fleet
        self._positions = positions
        self._embedding = embedding
        self._lookup = lookup
        self._calls = calls
        self._batches = batches
        self._held_ranges = held_ranges
        self._space = space
        self._deadline_seconds = deadline_ms / 1000
        self._judged: deque[_Judged] = deque(maxlen=_REMEMBERED_COVERAGES)
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
            packed = await self._queries_of(query, held, deadline, gathered)
            embedded_at = time.perf_counter()
            failpoint("after-embed")
            timings.embed = embedded_at - started
            # Before the first call is sent: see shashin.offsets.answer_coverage.
            known_before = self._positions.snapshot()
            queries = len(packed) // (4 * self._space.dimensions)
            groups = list(groups_of(held.peers).values())
            # The first hits of a single answer are the hits.
            spare = 0 if len(groups) == queries == 1 else _SPARE_ATTRIBUTES
            ask = _Asking(query, packed, queries, held, deadline, timings, spare)
            gathered.sources = [_Source(Replicas(group)) for group in groups]
            await self._fan_out(ask, gathered, gathered.sources)
            coverage = self._coverage(gathered, known_before)
            if coverage.missing and await self._fill_gap(ask, gathered, groups, coverage):
                coverage = self._coverage(gathered, known_before)
        if not gathered.answered:
            raise self._no_answer_error(gathered, held, deadline)
        merge_started = time.perf_counter()
        hits = gathered.found()
        now = time.perf_counter()
        timings.merge += now - merge_started
        timings.total = now - started
        self._observe(query, timings)
        if not coverage.complete:
            metrics.INCOMPLETE_ANSWERS.inc()
        return SearchAnswer(
            hits=hits,
            coverage=coverage,
            failures=list((gathered.lookup_failures | gathered.failures()).values()),
            endpoints=len(gathered.complete_answers()),
            timings=timings,
        )

    def _no_answer_error(self, gathered: _Gathered, held: Held, deadline: Deadline) -> ShashinError:
        return no_answer_error(
            list(gathered.failures().values()),
            [*held.other_models, *gathered.other_models()],
            model_id=self._space.model_id,
            deadline_seconds=deadline.seconds,
        )

    async def _queries_of(
        self, query: Query, held: Held, deadline: Deadline, gathered: _Gathered
    ) -> bytes:
        """Return the query vectors, (queries, dimensions) little-endian float32."""
        if query.vector is not None:
            # Endpoints scale it to unit length.
            check_vector(query.vector, self._space.dimensions)
            return query.vector
        if query.photo is not None:
            embedded = await self._embedding.embed_photo(query.photo, deadline)
            return embedded.astype("<f4", copy=False).tobytes()
        assert query.listing_id is not None
        found, failures = await self._lookup.look_up(
            held, [query.listing_id], with_vectors=True, deadline=deadline
        )
        gathered.lookup_failures = {failure.endpoint: failure for failure in failures}
        vectors = queries_of(query.listing_id, found.get(query.listing_id), failures)
        return vectors.astype("<f4", copy=False).tobytes()

    async def _fan_out(self, ask: _Asking, gathered: _Gathered, sources: Sequence[_Source]) -> None:
        """Ask some of the sources, and then those that may lack hits, until the list is exact."""
        query, asking = ask.query, list(sources)
        count = initial_k(query.k)
        while asking:
            started = time.perf_counter()
            for source, outcome in zip(asking, await self._ask(ask, asking, count), strict=True):
                source.take(outcome, count)
            answered_at = time.perf_counter()
            failpoint("after-fan-out")
            hits = gathered.merge(query)
            incomplete = [gathered.answered[n] for n in truncated(hits, gathered.merged, query.k)]
            asking = [source for source in incomplete if source.searched]
            count = min(2 * max((s.hits.k for s in asking if s.hits), default=0), MAX_HITS)
            ask.timings.fan_out += answered_at - started
            ask.timings.merge += time.perf_counter() - answered_at
            if asking:
                metrics.OVER_FETCH_ROUNDS.inc()
        if lacking := [s for s in gathered.describe() if s.searched and s.hits]:
            # Hits that came into the list since others of their source are not in it.
            count = max(source.hits.k for source in lacking if source.hits)
            outcomes = await self._ask(ask, lacking, count, attributes=count)
            for source, outcome in zip(lacking, outcomes, strict=True):
                source.take(outcome, count)
            gathered.merge(query)
            gathered.describe()

    async def _ask(
        self,
        ask: _Asking,
        sources: Sequence[_Source],
        count: int,
        *,
        attributes: int | None = None,
    ) -> list[GroupOutcome[EndpointAnswer]]:
        wanted = Wanted(
            self._space.model_id,
            self._space.dimensions,
            count,
            min(count, ask.query.k + ask.spare) if attributes is None else attributes,
            ask.query.row_filter.SerializeToString(deterministic=True),
        )
        return await self._calls.ask_groups(
            [source.replicas for source in sources],
            lambda peer: self._batches.search(
                peer, wanted, ask.packed, ask.queries, ask.deadline.remaining()
            ),
            method="Search",
            model_id=self._space.model_id,
            seconds_left=ask.deadline.remaining,
            joined=ask.held.joined,
            check=lambda answer: answer.problem,
        )

    async def _fill_gap(
        self,
        ask: _Asking,
        gathered: _Gathered,
        groups: Sequence[Sequence[Peer]],
        coverage: AnswerCoverage,
    ) -> bool:
        """Ask replicas that hold what the answers lack, one per group; returns whether there are any.

        During a rollout a group's replicas hold different shards: an old one may lack what the live tier
        no longer has.
        """
        found = holders_of(coverage.missing, groups, gathered.tried(), self._held_ranges())
        fillers = [_Source(replicas) for replicas in found]
        gathered.sources += fillers
        await self._fan_out(ask, gathered, fillers)
        for filler in fillers:
            if filler.peer is not None:
                metrics.FILLED_GAPS.labels(filler.peer.tier).inc()
        return bool(fillers)

    def _coverage(
        self, gathered: _Gathered, known_before: Mapping[int, Position]
    ) -> AnswerCoverage:
        """Return the coverage; searches whose calls were the same ones have the same."""
        answers = gathered.complete_answers()
        for judged in self._judged:
            if judged.answers == answers and judged.known_before is known_before:
                return judged.coverage
        report = merge_reports(answer.report for answer in answers)
        self._positions.update(report.positions)
        held = (r for answer in answers for r in answer.covered)
        coverage = answer_coverage(held, report, known_before)
        self._judged.appendleft(_Judged(answers, known_before, coverage))
        return coverage

    def _observe(self, query: Query, timings: Timings) -> None:
        if query.photo is not None:
            self._seconds["embed"].observe(timings.embed)
        elif query.listing_id is not None:
            self._seconds["lookup"].observe(timings.embed)
        self._seconds["fan_out"].observe(timings.fan_out)
        self._seconds["merge"].observe(timings.merge)
        self._seconds["total"].observe(timings.total)
