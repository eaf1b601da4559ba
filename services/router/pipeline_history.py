"""How far the pipeline came in the last minutes: a short ring of samples, and rates between them. No I/O.

Offsets are counted as they grow, each partition by itself: an endpoint that comes, goes or restarts neither
takes a count back nor adds what was processed before it was first seen.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter

from shashin.offsets.progress import (
    INDEXER,
    PipelineProgress,
    StageState,
    merge_dead_letters,
    merge_stages,
)
from shashin.offsets.ranges import OffsetRange

APP, SEARCHABLE = "app", "searchable"
"""The ends of the pipeline: what apps write, and what ready endpoints can search."""

STAGES = (APP, "downloader", "embedder", INDEXER, SEARCHABLE)

HISTORY_SECONDS = 300
SAMPLE_SECONDS = 1.0
RATE_SECONDS = 5.0
"""How long the history is, seconds between samples, and over how many seconds a rate is averaged."""

_EARLY_SECONDS = 0.05
"""Polls come at intervals that are only about right."""


@dataclass(frozen=True)
class StageFigures:
    """A stage at one time."""

    counted: int
    """Offsets that it has processed since the first sample."""
    behind: int | None
    """Offsets that it has not processed; None for those who write to the pipeline."""
    seconds: float | None
    """For how long at least the oldest of them has been waiting; None if that is not known."""
    processed: int
    """The sum of the offsets up to which its partitions are processed."""


@dataclass(frozen=True)
class Sample:
    """The pipeline at one time."""

    at: float
    """Unix seconds by the router's clock, in milliseconds, so that JSON has exactly this number."""
    clock: float
    """Seconds of a clock that only runs forward."""
    stages: Mapping[str, StageFigures]
    """Without those that nobody knows at this time."""
    events: int
    """Events that became searchable, since the first sample."""
    event_seconds: float
    """How long these took, summed up."""
    dead_letters: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Moment:
    """A sample, with what it says in comparison with earlier ones."""

    sample: Sample
    rates: Mapping[str, float]
    """Offsets per second of each stage; without those that are not known."""
    freshness_seconds: float | None
    """The mean time from an event until it was searchable; None if none became searchable lately."""


class GrowingOffsets:
    """Counts by how much the offsets of partitions grow."""

    def __init__(self) -> None:
        self._highest: dict[int, int] = {}
        self.counted = 0

    @property
    def processed(self) -> int:
        """The sum of the highest offsets."""
        return sum(self._highest.values())

    def note(self, offsets: Mapping[int, int]) -> None:
        """Note offsets of some or all partitions; lower ones than before count as none."""
        for partition, offset in offsets.items():
            known = self._highest.get(partition, offset)
            self.counted += max(0, offset - known)
            self._highest[partition] = max(offset, known)


class GrowingTotals:
    """Adds up totals of several processes, each of which begins at 0 again when it restarts."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, float]] = {}
        self.count = 0
        self.seconds = 0.0

    def note(self, name: str, count: int, seconds: float) -> None:
        """Note the totals of one process."""
        before = self._known.get(name)
        self._known[name] = count, seconds
        if before is None:
            return
        if count < before[0]:
            before = 0, 0.0
        self.count += count - before[0]
        self.seconds += max(0.0, seconds - before[1])

    def keep_only(self, names: Iterable[str]) -> None:
        """Forget the other processes."""
        self._known = {name: self._known[name] for name in names if name in self._known}


class PipelineHistory:
    """The samples of the last minutes."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._offsets = {stage: GrowingOffsets() for stage in STAGES}
        self._events = GrowingTotals()
        self._samples: deque[Sample] = deque(maxlen=int(HISTORY_SECONDS / SAMPLE_SECONDS))
        self.stages: Mapping[str, StageState] = {}
        """As of the last sample, with each partition."""

    def wants_sample(self) -> bool:
        """Return whether the last sample is so old that another one is taken."""
        last = self._samples[-1].clock if self._samples else float("-inf")
        return self._clock() - last >= SAMPLE_SECONDS - _EARLY_SECONDS

    def note(
        self, progresses: Mapping[str, PipelineProgress], searched_to: Mapping[int, int]
    ) -> None:
        """Take a sample: what live tiers report by the endpoint's name, and how far the log is searched."""
        stages = merge_stages(progresses.values())
        self.stages = stages
        figures: dict[str, StageFigures] = {}
        if (first := stages.get(STAGES[1])) is not None:
            ends = {p: state.end for p, state in first.partitions.items()}
            figures[APP] = self._counted(APP, ends, None, None)
        for name, stage in stages.items():
            if name in self._offsets:
                done = {p: state.processed for p, state in stage.partitions.items()}
                figures[name] = self._counted(name, done, stage.behind, stage.seconds)
        if searched_to:
            figures[SEARCHABLE] = self._counted(
                SEARCHABLE, searched_to, _behind(stages.get(INDEXER), searched_to), None
            )
        for name, progress in progresses.items():
            self._events.note(name, progress.searchable_events, progress.searchable_event_seconds)
        self._samples.append(
            Sample(
                round(self._wall_clock(), 3),
                self._clock(),
                figures,
                self._events.count,
                self._events.seconds,
                merge_dead_letters(progresses.values()),
            )
        )

    def keep_only(self, names: Iterable[str]) -> None:
        """Forget what endpoints that have left reported last."""
        self._events.keep_only(names)

    def moments(self, since: float = float("-inf")) -> list[Moment]:
        """Return the samples after a time, in Unix seconds, oldest first."""
        samples = list(self._samples)
        return [_moment(samples, number) for number, one in enumerate(samples) if one.at > since]

    def last(self) -> Moment | None:
        """Return the last sample; None before the first one."""
        return _moment(list(self._samples), len(self._samples) - 1) if self._samples else None

    def _counted(
        self, stage: str, offsets: Mapping[int, int], behind: int | None, seconds: float | None
    ) -> StageFigures:
        grown = self._offsets[stage]
        grown.note(offsets)
        return StageFigures(grown.counted, behind, seconds, grown.processed)


def searched_up_to(ranges: Iterable[OffsetRange]) -> dict[int, int]:
    """Return the end of the last range of each partition."""
    ends: dict[int, int] = {}
    for one in ranges:
        ends[one.partition] = max(one.to_offset, ends.get(one.partition, 0))
    return ends


def _behind(indexer: StageState | None, searched_to: Mapping[int, int]) -> int | None:
    if indexer is None:
        return None
    return sum(
        max(0, state.end - searched_to.get(partition, 0))
        for partition, state in indexer.partitions.items()
    )


def _moment(samples: Sequence[Sample], number: int) -> Moment:
    return Moment(samples[number], _rates(samples, number), _freshness(samples, number))


def _rates(samples: Sequence[Sample], number: int) -> dict[str, float]:
    sample = samples[number]
    before = _before(samples, number)
    rates = {}
    for stage, figures in sample.stages.items():
        # After a gap, the rate is the mean since the last sample that knew the stage.
        for index in chain(range(before - 1, -1, -1), range(before, number)):
            if (known := samples[index].stages.get(stage)) is not None:
                seconds = sample.clock - samples[index].clock
                rates[stage] = (figures.counted - known.counted) / seconds
                break
    return rates


def _freshness(samples: Sequence[Sample], number: int) -> float | None:
    sample = samples[number]
    earlier = samples[max(0, _before(samples, number) - 1)]
    events = sample.events - earlier.events
    return (sample.event_seconds - earlier.event_seconds) / events if events else None


def _before(samples: Sequence[Sample], number: int) -> int:
    """Return how many samples are at least as old as the begin of a sample's interval for rates."""
    since = samples[number].clock - RATE_SECONDS + _EARLY_SECONDS
    return bisect_right(samples, since, hi=number, key=attrgetter("clock"))
