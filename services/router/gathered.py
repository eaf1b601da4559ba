"""What a search has gathered so far: the answers of its sources, their merged hits, and what failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.router.batching import EndpointAnswer, Searched
from services.router.merge import EndpointHits, MergedHit, merge
from services.router.photo_hits import Hit, photos_as_hits, with_others
from services.router.queries import Query
from shashin.codecs.hit_lists import HitDetails
from shashin.discovery.protocol import Endpoint
from shashin.serving.fleet import Failure, OtherModel, Peer
from shashin.serving.replica_calls import GroupOutcome, Replicas


@dataclass
class Source:
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
        self.replicas = Replicas(self.replicas.peers, preferred=self.peer)

    @property
    def searched(self) -> bool:
        """Whether it answered in full.

        A source that failed in an over-fetch round may have more hits: the hits it returned are used,
        but its ranges do not count as searched.
        """
        return self.answer is not None and not self.failures and not self.other_models


@dataclass
class Gathered:
    """The answers so far."""

    sources: list[Source] = field(default_factory=list)
    lookup_failures: Mapping[Endpoint, Failure] = field(default_factory=dict)
    """Failures of the listing lookup, which precedes the search and does not affect coverage."""
    merged: list[MergedHit] = field(default_factory=list)
    """Their ``source`` is an index of ``answered``."""
    answered: list[Source] = field(default_factory=list)
    """The sources whose hits count, as of the last merge."""
    details: list[HitDetails | None] = field(default_factory=list)
    """Of the merged hits; None if they are not known."""

    def all_failures(self) -> list[Failure]:
        """All endpoints that failed, also those of look-ups."""
        return list({**self.lookup_failures, **self.failures()}.values())

    def failures(self) -> dict[Endpoint, Failure]:
        """The endpoints that failed, and why."""
        return {failure.endpoint: failure for source in self.sources for failure in source.failures}

    def other_models(self) -> list[OtherModel]:
        """The endpoints that hold another model."""
        return [other for source in self.sources for other in source.other_models]

    def complete_answers(self) -> tuple[Searched, ...]:
        """What the sources that answered in full have searched."""
        return tuple(
            [s.answer.searched for s in self.sources if s.answer is not None and s.searched]
        )

    @property
    def is_complete(self) -> bool:
        """Whether all sources answered in full."""
        return all(source.searched for source in self.sources)

    def found(self, query: Query) -> list[Hit]:
        """The hits of the answer."""
        if not query.needs_details:
            return [Hit(hit, None) for hit in self.merged]
        hits = list(map(Hit, self.merged, self.details))
        if query.needs_photos:
            hits = with_others(hits, self._hits())
        return photos_as_hits(hits, query.k, query.min_score) if query.each_photo else hits

    def describe(self) -> list[Source]:
        """Look the details of the merged hits up; returns the sources that were not asked for some."""
        self.details = self._details()
        if None not in self.details:
            return []
        described = zip(self.merged, self.details, strict=True)
        numbers = {hit.source for hit, details in described if details is None}
        return [source for number, source in enumerate(self.answered) if number in numbers]

    def merge(self, query: Query) -> list[EndpointHits]:
        """Merge the hits of all answers; returns these."""
        self.answered = [source for source in self.sources if source.answer is not None]
        hits = self._hits()
        self.merged = merge(hits, query.k, excluded=query.excluded, min_score=query.min_score)
        return hits

    def _hits(self) -> list[EndpointHits]:
        return [source.hits for source in self.answered if source.hits is not None]

    def _details(self) -> list[HitDetails | None]:
        """Look the details of the merged hits up, those of one source together."""
        if len(self.answered) == 1 and (alone := self.answered[0].hits) is not None:
            return list(alone.lists.details_at([hit.position for hit in self.merged]))
        positions: dict[int, list[int]] = {}
        for hit in self.merged:
            positions.setdefault(hit.source, []).append(hit.position)
        found = {}
        for source, wanted in positions.items():
            hits = self.answered[source].hits
            assert hits is not None
            found[source] = iter(hits.lists.details_at(wanted))
        return [next(found[hit.source]) for hit in self.merged]

    def tried(self) -> set[Endpoint]:
        """The endpoints that were asked."""
        return {endpoint for source in self.sources for endpoint in source.tried}
