"""What the endpoints of one model have: whether it can take over from the active one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

from shashin.codecs.ranges import ranges_in, report_in
from shashin.discovery.protocol import EMBEDDER, Discovery
from shashin.offsets.answer_coverage import AnswerCoverage, answer_coverage, merge_reports
from shashin.offsets.coverage import Position
from shashin.offsets.ranges import OffsetRange
from shashin.serving.fleet import INDEX_ROLES, Peer, ask_all
from shashin.v1 import index_pb2

_DESCRIBE_SECONDS = 5.0
_NAMED_RANGES = 5

MAX_LAG_RECORDS = 1000
MAX_LAG_SECONDS = 10.0
"""How far a model's embedders may be behind when it takes over."""

_EMBEDDER_STAGE = "embedder"


@dataclass(frozen=True)
class ModelState:
    """The endpoints of a model, together."""

    coverage: AnswerCoverage
    dimensions: frozenset[int] = frozenset()
    """Lengths of the vectors that its endpoints report: one, unless some are misconfigured."""
    endpoints: int = 0
    """Index endpoints that serve."""
    not_serving: tuple[str, ...] = ()
    """Index endpoints that do not, with why."""
    embedders: int = 0

    def problems(self) -> list[str]:
        """Return why the model should not take over; empty if it can. Pure."""
        found = []
        if not self.endpoints:
            found.append("no index endpoint serves it")
        if not self.embedders:
            found.append("no embedder of it is ready, so no photo could be searched with")
        found += self.not_serving
        if len(self.dimensions) > 1:
            found.append(f"its endpoints have vectors of {sorted(self.dimensions)} dimensions")
        return found + coverage_problems(self.coverage)


def coverage_problems(coverage: AnswerCoverage) -> list[str]:
    """Return what of the log a model does not have. Pure."""
    found = []
    if not coverage.partitions:
        found.append("no indexer reports a partition")
    if coverage.missing:
        found.append(
            f"it lacks {coverage.missing_offsets} offsets of the log, which builds with "
            f"source.reindex bring: {ranges_text(coverage.missing)}"
        )
    if coverage.unknown_partitions:
        listed = ", ".join(map(str, coverage.unknown_partitions))
        found.append(f"no indexer reports partition {listed}")
    # Models have their other stages in common.
    for lag in (lag for lag in coverage.stages if lag.stage == _EMBEDDER_STAGE):
        if lag.records is None:
            found.append("it is unknown how far its embedder is behind")
        elif lag.records > MAX_LAG_RECORDS or lag.seconds > MAX_LAG_SECONDS:
            found.append(f"its embedder is {lag.records} records behind, for {lag.seconds:.0f} s")
    return found


def ranges_text(ranges: tuple[OffsetRange, ...]) -> str:
    """Return ranges in words, the first few of many."""
    more = len(ranges) - _NAMED_RANGES
    return ", ".join(map(str, ranges[:_NAMED_RANGES])) + (f" and {more} more" if more > 0 else "")


async def model_state(
    discovery: Discovery, model_id: str, horizons: Mapping[int, int]
) -> ModelState:
    """Ask the endpoints of a model what they have.

    ``horizons`` are the offsets by partition from which the log has to be covered; for the others, it
    is the model's own horizon.

    Raises:
        ShashinError: when discovery does not respond.
    """
    endpoints = [e for e in await discovery.endpoints() if e.may_hold(model_id)]
    peers = [Peer(endpoint) for endpoint in endpoints if endpoint.role in INDEX_ROLES]
    try:
        asked = await ask_all(
            peers,
            lambda peer: peer.index.Describe(
                index_pb2.DescribeRequest(), timeout=_DESCRIBE_SECONDS
            ),
            method="Describe",
            model_id=model_id,
        )
    finally:
        await asyncio.gather(*(peer.close() for peer in peers))
    serving = [answer for _, answer in asked.answers if not answer.not_serving]
    report = merge_reports(map(report_in, serving))
    positions = {
        partition: Position(horizons.get(partition, position.horizon_offset), position.live_offset)
        for partition, position in report.positions.items()
    }
    held_ranges = (
        r for answer in serving for shard in answer.shards for r in ranges_in(shard.ranges)
    )
    return ModelState(
        answer_coverage(held_ranges, replace(report, positions=positions), {}),
        frozenset(answer.dimensions for answer in serving),
        len(serving),
        (
            *map(str, asked.failures),
            *(f"{p.endpoint}: {a.not_serving}" for p, a in asked.answers if a.not_serving),
        ),
        sum(endpoint.role == EMBEDDER for endpoint in endpoints),
    )
