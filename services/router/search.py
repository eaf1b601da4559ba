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
from dataclasses import dataclass

from services.router.batching import EndpointAnswer, SearchBatches, Searched, Wanted
from services.router.deadline import Deadline
from services.router.gaps import Described, holders_of
from services.router.gathered import Gathered, Source
from services.router.merge import truncated
from services.router.no_answer import no_answer_error
from services.router.notes import notes_of
from services.router.photo_hits import Hit
from services.router.queries import Query, validated
from services.router.query_vectors import QueryVectorizer
from shashin.codecs.limits import MAX_HITS
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
from shashin.serving.fleet import INDEX_ROLES, Failure, Fleet, Held, Peer
from shashin.serving.replica_calls import GroupOutcome, ReplicaCalls, Replicas, groups_of

_SPARE_ATTRIBUTES = 4
"""Hits beyond k whose attributes are asked for as well: some of the first may turn out to be outdated."""

_REMEMBERED_COVERAGES = 4
"""So many are remembered: what sealed tiers have searched is the same for a while."""


def initial_k(k: int, excluded: int = 0) -> int:
    """Return how many listings endpoints are asked for in the first round."""
    return min(k + k // 2 + 8 + excluded, MAX_HITS)


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
    endpoints_asked: int
    timings: Timings
    notes: list[str]


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
        vectorizer: QueryVectorizer,
        calls: ReplicaCalls,
        batches: SearchBatches,
        held_ranges: Callable[[], Described],
        *,
        space: ModelSpace,
        deadline_ms: int,
    ) -> None:
        self._fleet = fleet
        self._positions = positions
        self._vectorizer = vectorizer
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
            PhotoError: when a photo of it cannot be used.
            ListingNotFound: when a listing of it is not searchable.
            WrongModelRequested: when only embedders of another model respond.
            NoEndpoint: when no endpoint of the model responds.
            DeadlineExceeded: when none responds in time.
        """
        started = time.perf_counter()
        query = validated(query)
        own = query.deadline_ms / 1000 if query.deadline_ms else self._deadline_seconds
        deadline = Deadline.within(own, caller_seconds)
        timings = Timings()
        gathered = Gathered()
        with self._fleet.hold(*INDEX_ROLES) as held:
            if not held.peers:
                raise self._no_answer_error(gathered, held, deadline)
            vectors = await self._vectorizer.vectors_of(query, held, deadline)
            gathered.lookup_failures = vectors.lookup_failures
            embedded_at = time.perf_counter()
            failpoint("after-embed")
            timings.embed = embedded_at - started
            # Before the first call is sent: see shashin.offsets.answer_coverage.
            known_before = self._positions.snapshot()
            queries = len(vectors.packed) // (4 * self._space.dimensions)
            groups = list(groups_of(held.peers).values())
            # The first hits of a single answer are the hits.
            spare = 0 if len(groups) == queries == 1 else _SPARE_ATTRIBUTES
            spare += min(len(query.excluded), _SPARE_ATTRIBUTES)
            ask = _Asking(query, vectors.packed, queries, held, deadline, timings, spare)
            gathered.sources = [Source(Replicas(group)) for group in groups]
            await self._fan_out(ask, gathered, gathered.sources)
            answers = gathered.complete_answers()
            coverage = self._coverage(answers, known_before)
            if coverage.missing:
                is_filled = await self._fill_gap(ask, gathered, groups, coverage)
                answers = gathered.complete_answers()
                if is_filled:
                    coverage = self._coverage(answers, known_before)
        if not gathered.answered:
            raise self._no_answer_error(gathered, held, deadline)
        merge_started = time.perf_counter()
        hits = gathered.found(query)
        now = time.perf_counter()
        timings.merge += now - merge_started
        timings.total = now - started
        self._observe(query, timings)
        if not coverage.complete:
            metrics.INCOMPLETE_ANSWERS.inc()
        return SearchAnswer(
            hits=hits,
            coverage=coverage,
            failures=gathered.all_failures(),
            endpoints=len(answers),
            endpoints_asked=len(gathered.tried()),
            timings=timings,
            notes=notes_of(
                [answer.unknown for answer in answers],
                everything_searched=coverage.complete and gathered.is_complete,
            ),
        )

    def _no_answer_error(self, gathered: Gathered, held: Held, deadline: Deadline) -> ShashinError:
        return no_answer_error(
            list(gathered.failures().values()),
            [*held.other_models, *gathered.other_models()],
            model_id=self._space.model_id,
            deadline_seconds=deadline.seconds,
        )

    async def _fan_out(self, ask: _Asking, gathered: Gathered, sources: Sequence[Source]) -> None:
        """Ask some of the sources, and then those that may lack hits, until the list is exact."""
        query, asking = ask.query, list(sources)
        count = initial_k(query.k, len(query.excluded))
        while asking:
            started = time.perf_counter()
            for source, outcome in zip(asking, await self._ask(ask, asking, count), strict=True):
                source.take(outcome, count)
            answered_at = time.perf_counter()
            failpoint("after-fan-out")
            hits = gathered.merge(query)
            numbers = truncated(hits, gathered.merged, query.k, min_score=query.min_score)
            incomplete = [gathered.answered[number] for number in numbers]
            asking = [source for source in incomplete if source.searched]
            count = min(2 * max((s.hits.k for s in asking if s.hits), default=0), MAX_HITS)
            ask.timings.fan_out += answered_at - started
            ask.timings.merge += time.perf_counter() - answered_at
            if asking:
                metrics.OVER_FETCH_ROUNDS.inc()
        if not query.needs_details:
            return
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
        sources: Sequence[Source],
        count: int,
        *,
        attributes: int | None = None,
    ) -> list[GroupOutcome[EndpointAnswer]]:
        query = ask.query
        if not query.needs_details:
            attributes = 0
        elif attributes is None:
            attributes = min(count, query.k + ask.spare)
        wanted = Wanted(
            self._space.model_id,
            self._space.dimensions,
            count,
            attributes,
            query.row_filter.SerializeToString(deterministic=True),
            other_photos=query.needs_photos,
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
        gathered: Gathered,
        groups: Sequence[Sequence[Peer]],
        coverage: AnswerCoverage,
    ) -> bool:
        """Ask replicas that hold what the answers lack, one per group; returns whether there are any.

        During a rollout a group's replicas hold different shards: an old one may lack what the live tier
        no longer has.
        """
        found = holders_of(coverage.missing, groups, gathered.tried(), self._held_ranges())
        fillers = [Source(replicas) for replicas in found]
        gathered.sources += fillers
        await self._fan_out(ask, gathered, fillers)
        for filler in fillers:
            if filler.peer is not None:
                metrics.FILLED_GAPS.labels(filler.peer.tier).inc()
        return bool(fillers)

    def _coverage(
        self, answers: tuple[Searched, ...], known_before: Mapping[int, Position]
    ) -> AnswerCoverage:
        """Return the coverage; of answers that say the same as others before, it is known."""
        for judged in self._judged:
            if judged.known_before is known_before and judged.answers == answers:
                return judged.coverage
        report = merge_reports(answer.report for answer in answers)
        self._positions.update(report.positions)
        held = (r for answer in answers for r in answer.covered)
        coverage = answer_coverage(held, report, known_before)
        self._judged.appendleft(_Judged(answers, known_before, coverage))
        return coverage

    def _observe(self, query: Query, timings: Timings) -> None:
        if query.photo is not None or any(part.photo is not None for part in query.parts):
            self._seconds["embed"].observe(timings.embed)
        elif query.listing_id is not None or query.parts:
            self._seconds["lookup"].observe(timings.embed)
        self._seconds["fan_out"].observe(timings.fan_out)
        self._seconds["merge"].observe(timings.merge)
        self._seconds["total"].observe(timings.total)
