"""How far the stages of the pipeline have come, as live tiers report it. Pure.

Unlike coverage it decides nothing: it is shown, and rates are computed from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

INDEXER = "indexer"
"""The stage that live tiers are."""


@dataclass(frozen=True)
class PartitionOffsets:
    """A stage in one partition of its input topic."""

    processed: int
    """The offset up to which it has processed the partition."""
    end: int

    @property
    def behind(self) -> int:
        """The number of offsets that it has not processed."""
        return max(0, self.end - self.processed)


@dataclass(frozen=True)
class StageOffsets:
    """A stage in its input topic."""

    stage: str
    topic: str
    seconds: float = 0.0
    """For how long at least the oldest record that is not processed has been waiting."""
    partitions: Mapping[int, PartitionOffsets] = field(default_factory=dict)


@dataclass(frozen=True)
class PipelineProgress:
    """What one live tier has sampled."""

    stages: tuple[StageOffsets, ...] = ()
    """Those with a recent sample, in the order of the pipeline."""
    dead_letters: Mapping[str, int] = field(default_factory=dict)
    """Records that each topic of dead letters retains; without those that are unknown."""
    searchable_events: int = 0
    """Events that became searchable since the process started."""
    searchable_event_seconds: float = 0.0
    """How long these took from the event, summed up."""


@dataclass(frozen=True)
class PartitionState:
    """A stage in one partition, as several live tiers report it together."""

    processed: int
    """As far as any has it."""
    end: int
    behind: int
    """Of the one that is furthest behind."""


@dataclass(frozen=True)
class StageState:
    """A stage as several live tiers report it together."""

    stage: str
    topic: str
    seconds: float
    """Of the one whose oldest record has been waiting for longest."""
    partitions: Mapping[int, PartitionState]

    @property
    def behind(self) -> int:
        """The number of offsets that are not processed."""
        return sum(state.behind for state in self.partitions.values())


def merge_stages(progresses: Iterable[PipelineProgress]) -> dict[str, StageState]:
    """Return what several live tiers report together, by stage.

    They sample the same groups at different times, and replicas index the same partitions: the furthest
    offset counts as processed, and the largest lag as lag.
    """
    merged: dict[str, StageState] = {}
    for progress in progresses:
        for found in progress.stages:
            known = merged.get(found.stage)
            partitions = {} if known is None else dict(known.partitions)
            for partition, offsets in found.partitions.items():
                other = partitions.get(partition, PartitionState(0, 0, 0))
                partitions[partition] = PartitionState(
                    max(offsets.processed, other.processed),
                    max(offsets.end, other.end),
                    max(offsets.behind, other.behind),
                )
            merged[found.stage] = StageState(
                found.stage,
                found.topic,
                found.seconds if known is None else max(found.seconds, known.seconds),
                partitions,
            )
    return merged


def merge_dead_letters(progresses: Iterable[PipelineProgress]) -> dict[str, int]:
    """Return the records that each topic of dead letters retains, the largest of what is reported."""
    merged: dict[str, int] = {}
    for progress in progresses:
        for topic, records in progress.dead_letters.items():
            merged[topic] = max(records, merged.get(topic, 0))
    return merged
