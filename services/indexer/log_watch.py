"""Watches the end of the log, and how far the indexer and the stages before it are behind.

Its loops are apart from the reader of the log, so that coverage shows a reader that waits or is
stuck: the end that everything should be searchable up to moves on without it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from services.indexer.dead_letter_watch import DeadLetterWatch
from services.indexer.settings import IndexerSettings
from shashin.errors import KafkaUnavailable
from shashin.kafka.append_times import AppendTimes
from shashin.kafka.groups import DOWNLOADER_GROUP, embedder_group
from shashin.kafka.log_reader import LogReader
from shashin.kafka.topic_admin import measure_retention
from shashin.kafka.topics import IMAGES_DOWNLOADED, LISTINGS_EVENTS, VECTORS_EMBEDDED
from shashin.metrics import indexer as metrics
from shashin.offsets.coverage import StageLag
from shashin.offsets.progress import INDEXER, PartitionOffsets, PipelineProgress, StageOffsets
from shashin.offsets.seen_ends import SeenEnds
from shashin.runtime.health import LONG_WAIT_SECONDS
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope

SEARCHABLE_WITHIN_SECONDS = 1.0
"""A record has to be searchable this long after it was seen in the log."""

_END_SECONDS = 0.25
_STAGES_SECONDS = 1.0
_PARTITIONS_SECONDS = 5.0
_RETENTION_SECONDS = 5.0
"""Between requests for the end of the log, the lag of stages, the topic's partitions, and its retention."""

_TIMEOUT_SECONDS = 5.0
_APPEND_TIMES_SECONDS = 2.0
"""For reading what a sample does not need."""
_RETRY_SECONDS = 1.0

Clock = Callable[[], float]

log = get_logger(__name__)


class LogEnds:
    """The ends of the log's partitions as they were sampled. No I/O."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._sampled_at = clock()
        self._seen: dict[int, SeenEnds] = {}

    @property
    def partitions(self) -> int:
        """The number of partitions of the topic; 0 before the first sample."""
        return max(self._seen, default=-1) + 1

    def note(self, ends: Mapping[int, int]) -> None:
        """Note a sample that has just arrived."""
        now = self._sampled_at = self._clock()
        for partition, end in ends.items():
            seen = self._seen.setdefault(partition, SeenEnds())
            # What the log held at the start is required at once.
            seen.note(end, now if seen.seen else now - SEARCHABLE_WITHIN_SECONDS)
            seen.forget_before(now - SEARCHABLE_WITHIN_SECONDS)

    def searchable_up_to(self) -> dict[int, int]:
        """Return the end of each partition up to which everything should be searchable by now."""
        at = self._clock() - SEARCHABLE_WITHIN_SECONDS
        ends = {partition: seen.as_of(at) for partition, seen in self._seen.items()}
        return {partition: end for partition, end in ends.items() if end is not None}

    def unknown_seconds(self) -> float:
        """Return for how long there was no sample, once that is long; else 0."""
        seconds = self._clock() - self._sampled_at
        return seconds if seconds > LONG_WAIT_SECONDS else 0.0


@dataclass(frozen=True)
class Stage:
    """A stage before the indexer, with what it reads."""

    name: str
    topic: str
    group: str


def stages_before(model_id: str) -> tuple[Stage, ...]:
    """Return the stages before a model's indexers, in the order of the pipeline."""
    return (
        Stage("downloader", LISTINGS_EVENTS, DOWNLOADER_GROUP),
        Stage("embedder", IMAGES_DOWNLOADED, embedder_group(model_id)),
    )


class StageProgress:
    """How far a stage is behind, from samples. No I/O."""

    def __init__(self, name: str, clock: Clock = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._sampled_at: float | None = None
        self._ends: dict[int, SeenEnds] = {}
        self._first_ends: dict[int, int] = {}
        self._records = 0
        self._partitions: dict[int, PartitionOffsets] = {}
        self._oldest: float | None = None
        """Since when the oldest record that is not processed waits."""

    def waiting_from_before(
        self, processed: Mapping[int, int], ends: Mapping[int, int]
    ) -> dict[int, int]:
        """Return the positions at records that waited already when the first sample was taken.

        Samples do not tell for how long these wait.
        """
        return {
            partition: processed[partition]
            for partition, end in ends.items()
            if processed[partition] < min(end, self._first_ends.get(partition, end))
        }

    def note(
        self,
        processed: Mapping[int, int],
        ends: Mapping[int, int],
        ages: Mapping[int, float] | None = None,
    ) -> None:
        """Note a sample: the offset up to which each partition is processed, and its end.

        ``ages`` has, by partition, for how many seconds the record at that offset is in the log, where
        that is known.
        """
        now = self._sampled_at = self._clock()
        waiting_since = [now - age for age in (ages or {}).values()]
        for partition, end in ends.items():
            self._first_ends.setdefault(partition, end)
            seen = self._ends.setdefault(partition, SeenEnds())
            seen.note(end, now)
            seen.forget_through(processed[partition])
            if (first := seen.passed_at(processed[partition])) is not None:
                waiting_since.append(first)
        self._partitions = {p: PartitionOffsets(processed[p], end) for p, end in ends.items()}
        self._records = sum(offsets.behind for offsets in self._partitions.values())
        self._oldest = min(waiting_since, default=None)

    def lag(self) -> StageLag:
        """Return how far it is behind; unknown without a recent sample."""
        if not self._is_recent():
            return StageLag(self._name, None)
        return StageLag(self._name, self._records, self._waiting_seconds())

    def offsets(self, topic: str) -> StageOffsets | None:
        """Return its offsets in its input topic; None without a recent sample."""
        if not self._is_recent():
            return None
        return StageOffsets(self._name, topic, self._waiting_seconds(), self._partitions)

    def _is_recent(self) -> bool:
        at = self._sampled_at
        return at is not None and self._clock() - at <= LONG_WAIT_SECONDS

    def _waiting_seconds(self) -> float:
        return 0.0 if self._oldest is None else self._clock() - self._oldest


class LogWatch:
    """Samples the end of the log and the progress of the stages before it."""

    def __init__(
        self, settings: IndexerSettings, next_offsets: Callable[[], Mapping[int, int]]
    ) -> None:
        """``next_offsets`` returns the offset up to which each partition of this replica is indexed."""
        self.ends = LogEnds()
        self._next_offsets = next_offsets
        self._own = StageProgress(INDEXER)
        self._own_append_times = AppendTimes(settings.kafka, VECTORS_EMBEDDED, client_id="indexer")
        self._own_sample: tuple[Mapping[int, int], Mapping[int, int]] | None = None
        """What is indexed and the ends, until it is noted."""
        self._kafka = settings.kafka
        self._stages = [
            (stage, StageProgress(stage.name)) for stage in stages_before(settings.model_id)
        ]
        self._dead_letters = DeadLetterWatch(settings.kafka)

    def lags(self) -> tuple[StageLag, ...]:
        """Return how far the stages are behind."""
        return tuple(progress.lag() for _, progress in self._stages)

    def progress(self) -> PipelineProgress:
        """Return how far the stages and this replica have come, of what was sampled recently."""
        sampled = [
            *(progress.offsets(stage.topic) for stage, progress in self._stages),
            self._own.offsets(VECTORS_EMBEDDED),
        ]
        return PipelineProgress(
            tuple(offsets for offsets in sampled if offsets is not None),
            self._dead_letters.records(),
        )

    def loops(self) -> tuple[Loop, Loop, Loop, Loop]:
        """Return the loops; the process is ready once it knows the end of the log."""
        return (
            Loop(
                f"watch of the end of {VECTORS_EMBEDDED}",
                self._watch_end,
                ready_when=f"the end of {VECTORS_EMBEDDED}",
            ),
            Loop("watch of the stages before", self._watch_stages),
            Loop("watch of retention", self._watch_retention),
            self._dead_letters.loop(),
        )

    async def _watch_end(self, loop: LoopScope) -> None:
        async with AsyncExitStack() as stack:
            topic = await self._open(VECTORS_EMBEDDED, None, loop, stack)

            async def sample() -> None:
                # Before the ends, so that the lag is never too small.
                indexed = dict(self._next_offsets())
                ends = await topic.reader.end_offsets(await topic.partitions())
                self.ends.note(ends)
                self._own_sample = indexed, {p: end for p, end in ends.items() if p in indexed}
                loop.ready()

            while loop.next_turn():
                await _attempt(f"end of {VECTORS_EMBEDDED}", sample, loop)
                await loop.sleep(_END_SECONDS)

    async def _watch_stages(self, loop: LoopScope) -> None:
        async with AsyncExitStack() as stack:
            stages = [
                (stage, progress, await self._open(stage.topic, stage.group, loop, stack))
                for stage, progress in self._stages
            ]
            while loop.next_turn():
                # In the order of the pipeline: what a stage has processed is then in the sample
                # of the next one.
                for stage, progress, topic in stages:
                    await _attempt(
                        f"lag of the {stage.name}", partial(_sample, progress, topic), loop
                    )
                    _publish(progress.lag(), stage.topic)
                if self._own_sample is not None:
                    sample, self._own_sample = self._own_sample, None
                    with loop.waiting_for("append times of unread records"):
                        await _note(self._own, *sample, self._own_append_times)
                _publish(self._own.lag(), VECTORS_EMBEDDED)
                await loop.sleep(_STAGES_SECONDS)

    async def _watch_retention(self, loop: LoopScope) -> None:
        topics = [*(stage.topic for stage, _ in self._stages), VECTORS_EMBEDDED]
        while loop.next_turn():
            await _attempt(
                "retention of topics", partial(measure_retention, self._kafka, topics), loop
            )
            await loop.sleep(_RETENTION_SECONDS)

    async def _open(
        self, topic: str, group: str | None, loop: LoopScope, stack: AsyncExitStack
    ) -> _Topic:
        reader = await loop.retry(
            f"kafka at {self._kafka}",
            lambda: stack.enter_async_context(
                LogReader(self._kafka, topic, client_id="indexer", group=group)
            ),
        )
        return _Topic(reader, AppendTimes(self._kafka, topic, client_id="indexer"))


class _Topic:
    """A topic with its partitions, which are requested now and then."""

    def __init__(self, reader: LogReader, append_times: AppendTimes) -> None:
        self.reader = reader
        self.append_times = append_times
        self._partitions: Sequence[int] = ()
        self._next_request = 0.0

    async def partitions(self) -> Sequence[int]:
        if (now := time.monotonic()) >= self._next_request:
            self._partitions = await self.reader.partitions()
            self._next_request = now + _PARTITIONS_SECONDS
        return self._partitions


async def _sample(progress: StageProgress, topic: _Topic) -> None:
    reader, partitions = topic.reader, await topic.partitions()
    # Before the ends, so that the lag is never too small.
    committed = await reader.committed(partitions)
    if new := [p for p in partitions if p not in committed]:
        committed |= await reader.begin_offsets(new)
    ends = await reader.end_offsets(partitions)
    await _note(progress, committed, ends, topic.append_times)


async def _note(
    progress: StageProgress,
    processed: Mapping[int, int],
    ends: Mapping[int, int],
    append_times: AppendTimes,
) -> None:
    from_before = progress.waiting_from_before(processed, ends)
    progress.note(processed, ends, append_times.ages(from_before))
    try:
        async with asyncio.timeout(_APPEND_TIMES_SECONDS):
            await append_times.read(from_before)
    except (KafkaUnavailable, TimeoutError) as error:
        # The sample is good without it, and it is read again soon.
        log.info("append times not read", error=str(error))


def _publish(lag: StageLag, topic: str) -> None:
    unknown = lag.records is None
    metrics.STAGE_LAG.labels(lag.stage).set(math.nan if lag.records is None else lag.records)
    metrics.STAGE_LAG_SECONDS.labels(lag.stage, topic).set(math.nan if unknown else lag.seconds)


async def _attempt(what: str, do: Callable[[], Awaitable[None]], loop: LoopScope) -> None:
    """Call ``do``; a failure is reported, and the next turn calls it again."""
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            with loop.waiting_for(what):
                await do()
    except KafkaUnavailable as error:
        problem = error.message
    except TimeoutError:
        problem = f"kafka did not respond within {_TIMEOUT_SECONDS:.0f} s"
    else:
        loop.clear(what)
        return
    loop.degraded(what, problem)
    log.warning("sample failed: retrying", what=what, error=problem)
    await loop.sleep(_RETRY_SECONDS)
