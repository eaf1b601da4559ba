"""Polls each index endpoint of a fleet for the shards that it holds.

So a new endpoint has its connection and has answered once before searches prefer it to other replicas.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from services.router.pipeline_history import PipelineHistory, searched_up_to
from shashin.codecs.pipeline import progress_in
from shashin.codecs.ranges import ranges_in, report_in
from shashin.discovery.protocol import Endpoint
from shashin.metrics import router as metrics
from shashin.model_space import ModelSpace
from shashin.offsets.answer_coverage import (
    AnswerCoverage,
    KnownPositions,
    answer_coverage,
    merge_reports,
)
from shashin.offsets.coverage import LiveReport, Position
from shashin.offsets.ranges import OffsetRange, merge_ranges
from shashin.runtime.logging import get_logger
from shashin.serving.fleet import INDEX_ROLES, Fleet, OtherModel, Peer, ask_all, tier_of
from shashin.serving.replica_record import ReplicaRecord
from shashin.v1 import index_pb2

_MIN_DESCRIBE_TIMEOUT = 1.0
"""Minimum timeout of a Describe call in seconds, however short the interval is."""

log = get_logger(__name__)


Status = Literal[
    "ready",  # responds to Describe and holds the active model
    "unready",
    "other_model",  # holds another model: not an error, and not searched
]


@dataclass(frozen=True)
class EndpointState:
    """The known state of one index endpoint."""

    endpoint: Endpoint
    tier: str
    status: Status
    error: str = ""
    """Why it is not ready."""
    model_id: str = ""
    """The model that it holds, if known."""
    shards: int = 0
    rows: int = 0
    hidden_rows: int = 0
    covered: tuple[OffsetRange, ...] = ()
    report: LiveReport = field(default_factory=LiveReport)
    described: index_pb2.DescribeResponse | None = field(default=None, compare=False, repr=False)
    """Its answer as it came, which only those read who show it; None unless it is ready."""

    @property
    def ready(self) -> bool:
        """Whether it is searched."""
        return self.status == "ready"

    def __str__(self) -> str:
        reason = f"it holds model {self.model_id!r}" if self.status == "other_model" else self.error
        return f"{self.endpoint.name}: {reason}"


class EndpointWatch:
    """Tracks the state of each index endpoint of a fleet, for one model."""

    def __init__(
        self,
        fleet: Fleet,
        positions: KnownPositions,
        record: ReplicaRecord,
        *,
        space: ModelSpace,
        describe_seconds: float,
    ) -> None:
        self._fleet = fleet
        self._positions = positions
        self._record = record
        self._space = space
        self._describe_seconds = describe_seconds
        self._states: dict[Endpoint, EndpointState] = {}
        self._known_before: Mapping[int, Position] = {}
        self.history = PipelineHistory()
        """How far the pipeline came in the last minutes."""

    def states(self) -> list[EndpointState]:
        """Return the state of each index endpoint in discovery, sorted by name."""
        return [
            self._states.get(endpoint) or self._undescribed(endpoint)
            for endpoint in self._fleet.endpoints(*INDEX_ROLES)
        ]

    def _undescribed(self, endpoint: Endpoint) -> EndpointState:
        if endpoint.may_hold(self._space.model_id):
            return _unready(endpoint, "not described yet")
        return _other_model(OtherModel(endpoint, endpoint.model_id))

    def coverage(self) -> AnswerCoverage:
        """Return the coverage of the log by the ready endpoints."""
        ready = [state for state in self.states() if state.ready]
        return answer_coverage(
            (r for state in ready for r in state.covered),
            merge_reports(state.report for state in ready),
            self._known_before,
        )

    def held_ranges(self) -> Mapping[Endpoint, tuple[OffsetRange, ...]]:
        """Return the ranges that each ready endpoint has described last."""
        return {endpoint: s.covered for endpoint, s in self._states.items() if s.ready}

    async def describe_once(self) -> str | None:
        """Poll every endpoint once and update the states; returns why none is ready, or None."""
        known_before = self._positions.snapshot()
        timeout = max(self._describe_seconds, _MIN_DESCRIBE_TIMEOUT)
        with self._fleet.hold(*INDEX_ROLES) as held:
            results = await ask_all(
                held.peers,
                lambda peer: peer.index.Describe(index_pb2.DescribeRequest(), timeout=timeout),
                method="Describe",
                model_id=self._space.model_id,
                check=self._dimension_mismatch,
            )
        states = {peer.endpoint: _described(peer, answer) for peer, answer in results.answers}
        for failure in results.failures:
            states[failure.endpoint] = _unready(failure.endpoint, failure.error)
        for other in results.other_models:
            states[other.endpoint] = _other_model(other)
        self._log_changes(states)
        self._states, self._known_before = states, known_before
        self._record.describe(
            ready=(endpoint for endpoint, state in states.items() if state.ready),
            unready=(endpoint for endpoint, state in states.items() if not state.ready),
        )
        self._positions.update(merge_reports(s.report for s in states.values()).positions)
        self._note_progress(states.values())
        return self._not_ready()

    def _note_progress(self, states: Collection[EndpointState]) -> None:
        if not self.history.wants_sample():
            return
        described = {s.endpoint.name: s.described for s in states if s.described is not None}
        progresses = {name: progress_in(answer) for name, answer in described.items()}
        self.history.keep_only(state.endpoint.name for state in states)
        self.history.note(
            {name: found for name, found in progresses.items() if found is not None},
            # Also of ranges that are empty yet, which what is covered leaves out.
            searched_up_to(
                r
                for answer in described.values()
                for shard in answer.shards
                for r in ranges_in(shard.ranges)
            ),
        )

    def _dimension_mismatch(self, answer: index_pb2.DescribeResponse) -> str | None:
        if answer.dimensions == self._space.dimensions:
            return None
        return (
            f"it holds vectors of {answer.dimensions} dimensions; the router searches {self._space}"
        )

    def _log_changes(self, states: Mapping[Endpoint, EndpointState]) -> None:
        for endpoint, state in states.items():
            before = self._states.get(endpoint)
            if before is None or before.status != state.status:
                log.info(
                    _STATUS_EVENTS[state.status],
                    endpoint=endpoint.name,
                    tier=state.tier,
                    model_id=state.model_id or None,
                    error=state.error or None,
                )

    def publish(self) -> None:
        """Set the metrics to the last known state."""
        states, coverage = self.states(), self.coverage()
        metrics.COVERAGE_COMPLETE.set(coverage.complete)
        metrics.MISSING_OFFSETS.set(coverage.missing_offsets)
        metrics.UNKNOWN_PARTITIONS.set(len(coverage.unknown_partitions))
        counts = Counter((state.tier, state.status) for state in states)
        metrics.ENDPOINTS.clear()
        for tier in sorted({state.tier for state in states}):
            for status in _STATUS_EVENTS:
                metrics.ENDPOINTS.labels(tier, status).set(counts[tier, status])

    def _not_ready(self) -> str | None:
        states = self.states()
        if any(state.ready for state in states):
            return None
        if not states:
            return "discovery has no index endpoint"
        return (
            f"none of {len(states)} endpoints is ready for model {self._space.model_id!r}: "
            f"{'; '.join(map(str, states))}"
        )


_STATUS_EVENTS: dict[Status, str] = {
    "ready": "endpoint is ready",
    "unready": "endpoint is not ready",
    "other_model": "endpoint holds another model",
}


def _unready(endpoint: Endpoint, error: str) -> EndpointState:
    return EndpointState(endpoint, tier_of(endpoint), "unready", error, endpoint.model_id)


def _other_model(other: OtherModel) -> EndpointState:
    endpoint = other.endpoint
    return EndpointState(endpoint, tier_of(endpoint), "other_model", model_id=other.model_id)


def _described(peer: Peer, answer: index_pb2.DescribeResponse) -> EndpointState:
    if answer.not_serving:
        return EndpointState(
            peer.endpoint,
            peer.tier or answer.tier,
            "unready",
            answer.not_serving,
            answer.model_id,
        )
    return EndpointState(
        endpoint=peer.endpoint,
        tier=peer.tier or answer.tier,
        status="ready",
        model_id=answer.model_id,
        shards=len(answer.shards),
        rows=answer.rows,
        hidden_rows=answer.hidden_rows,
        covered=tuple(merge_ranges(r for shard in answer.shards for r in ranges_in(shard.ranges))),
        report=report_in(answer),
        described=answer,
    )
