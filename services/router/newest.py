"""Newest: the listings that were listed last, from the freshest tiers that have enough of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from services.router.deadline import Deadline
from services.router.no_answer import no_answer_error
from shashin.codecs.limits import MAX_NEWEST
from shashin.discovery.protocol import GroupKey
from shashin.errors import InvalidQuery
from shashin.model_space import ModelSpace
from shashin.serving.fleet import INDEX_ROLES, Failure, Fleet, Held, OtherModel
from shashin.serving.replica_calls import ReplicaCalls, Replicas, groups_of
from shashin.tiers import freshest_first
from shashin.v1 import events_pb2, index_pb2


@dataclass(frozen=True)
class NewListing:
    """A listing, with the tier that it was found in."""

    tier: str
    row: index_pb2.NewestRow


@dataclass(frozen=True)
class NewestAnswer:
    """Listings, the one listed last first, and the endpoints that failed."""

    listings: list[NewListing]
    failures: list[Failure]


def merged(answers: Iterable[tuple[str, Iterable[index_pb2.NewestRow]]]) -> list[NewListing]:
    """Return the listings of answers, which are pairs of tier and rows: each once, the one listed last first.

    Of a listing in several answers the newest version counts, and of that the first answer. What was listed at
    the same time stays in the order of the answers.
    """
    found: dict[str, NewListing] = {}
    for tier, rows in answers:
        for row in rows:
            known = found.get(row.listing_id)
            if known is None or known.row.version < row.version:
                found[row.listing_id] = NewListing(tier, row)
    return sorted(found.values(), key=lambda one: _listed(one.row.attributes), reverse=True)


def _listed(attributes: events_pb2.Attributes) -> tuple[bool, int]:
    return attributes.HasField("listed_at"), attributes.listed_at.seconds


class Newest:
    """Asks the endpoints of one model, one replica per group."""

    def __init__(
        self, fleet: Fleet, calls: ReplicaCalls, *, space: ModelSpace, deadline_ms: int
    ) -> None:
        self._fleet = fleet
        self._calls = calls
        self._space = space
        self._deadline_seconds = deadline_ms / 1000

    async def newest(self, limit: int) -> NewestAnswer:
        """Return up to ``limit`` listings, from the live tier; from older ones as well if it has too few.

        Raises:
            InvalidQuery: when the limit is not 1 to 200.
            NoEndpoint: when no endpoint of the model responds.
            DeadlineExceeded: when none responds in time.
        """
        if not 1 <= limit <= MAX_NEWEST:
            raise InvalidQuery(f"limit is {limit}; expected 1 to {MAX_NEWEST}")
        request = index_pb2.NewestRequest(model_id=self._space.model_id, limit=limit)
        deadline = Deadline.within(self._deadline_seconds)
        answers: list[tuple[str, Iterable[index_pb2.NewestRow]]] = []
        failures: list[Failure] = []
        others: list[OtherModel] = []
        found: list[NewListing] = []
        with self._fleet.hold(*INDEX_ROLES) as held:
            others += held.other_models
            for groups in _by_tier(held):
                outcomes = await self._calls.ask_groups(
                    groups,
                    lambda peer: peer.calls.send(
                        "Newest", peer.index.Newest, request, seconds=deadline.remaining()
                    ),
                    method="Newest",
                    model_id=self._space.model_id,
                    seconds_left=deadline.remaining,
                    joined=held.joined,
                )
                for outcome in outcomes:
                    if outcome.answer is None:
                        failures += outcome.failures
                        others += outcome.other_models
                    else:
                        peer, answer = outcome.answer
                        answers.append((peer.tier, answer.rows))
                found = merged(answers)
                if len(found) >= limit:
                    break
        if not answers:
            raise no_answer_error(
                failures,
                others,
                model_id=self._space.model_id,
                deadline_seconds=deadline.seconds,
            )
        return NewestAnswer(found[:limit], failures)


def _by_tier(held: Held) -> list[list[Replicas]]:
    """Return the groups of each tier, the freshest tier first."""
    tiers: dict[str, dict[GroupKey, Replicas]] = {}
    for group, peers in groups_of(held.peers).items():
        tiers.setdefault(peers[0].tier, {})[group] = Replicas(peers)
    return [list(tiers[tier].values()) for tier in freshest_first(tiers)]
