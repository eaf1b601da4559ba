"""Counts what the topics of dead letters retain, for those who show the pipeline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial

from shashin.errors import KafkaUnavailable
from shashin.kafka.log_reader import LogReader
from shashin.kafka.topics import DEAD_LETTER_TOPICS
from shashin.runtime.health import LONG_WAIT_SECONDS
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope

_EVERY_SECONDS = 2.0
_TIMEOUT_SECONDS = 5.0
_KNOWN_SECONDS = LONG_WAIT_SECONDS + _EVERY_SECONDS
"""For how long a count stands without another one."""

log = get_logger(__name__)


class DeadLetterCounts:
    """The last count of each topic. No I/O."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: dict[str, tuple[float, int]] = {}

    def note(self, topic: str, begins: Mapping[int, int], ends: Mapping[int, int]) -> None:
        """Note the offsets of a topic's partitions."""
        records = sum(max(0, end - begins[partition]) for partition, end in ends.items())
        self._counts[topic] = self._clock(), records

    def records(self) -> dict[str, int]:
        """Return the records of each topic; without those that were not counted recently."""
        since = self._clock() - _KNOWN_SECONDS
        return {topic: records for topic, (at, records) in self._counts.items() if at >= since}


class DeadLetterWatch:
    """Asks for the offsets of the topics: two requests for each, every two seconds.

    Nothing depends on it, so a failure is no degradation: it leaves the count out.
    """

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._counts = DeadLetterCounts()

    def records(self) -> dict[str, int]:
        """Return the records of each topic; without those that were not counted recently."""
        return self._counts.records()

    def loop(self) -> Loop:
        """Return the loop."""
        return Loop("watch of dead letters", self._watch)

    async def _watch(self, loop: LoopScope) -> None:
        async with AsyncExitStack() as stack:
            readers = {
                topic: await loop.retry(
                    f"kafka at {self._bootstrap}", partial(self._open, topic, stack)
                )
                for topic in DEAD_LETTER_TOPICS
            }
            while loop.next_turn():
                for topic, reader in readers.items():
                    with loop.waiting_for(f"offsets of {topic}"):
                        await self._count(topic, reader)
                await loop.sleep(_EVERY_SECONDS)

    async def _open(self, topic: str, stack: AsyncExitStack) -> LogReader:
        return await stack.enter_async_context(
            LogReader(self._bootstrap, topic, client_id="indexer")
        )

    async def _count(self, topic: str, reader: LogReader) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                partitions = await reader.partitions()
                begins = await reader.begin_offsets(partitions)
                self._counts.note(topic, begins, await reader.end_offsets(partitions))
        except KafkaUnavailable as error:
            log.info("dead letters not counted", topic=topic, error=error.message)
        except TimeoutError:
            log.info("dead letters not counted", topic=topic, error="kafka did not respond")
