"""Reading topics to their end: the events that came in, the dead letters, what is hidden."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from shashin.kafka.log_reader import LogReader
from shashin.kafka.records import InRecord
from shashin.kafka.topics import (
    DEAD_LETTER_SUFFIX,
    IMAGES_DOWNLOADED,
    LISTINGS_EVENTS,
    LISTINGS_HIDDEN,
    VECTORS_EMBEDDED,
)
from shashin.v1 import events_pb2

CLIENT_ID = "shashin-cli"

_VALUES = {
    LISTINGS_EVENTS: events_pb2.ListingEvent,
    IMAGES_DOWNLOADED: events_pb2.DownloadedListing,
    VECTORS_EMBEDDED: events_pb2.EmbeddedListing,
}


@dataclass(frozen=True)
class GivenUp:
    """One dead letter: a record, or one photo of it, that cannot be used."""

    topic: str
    """The topic of the record, without ``.dlq``."""
    partition: int
    offset: int
    listing_id: str
    version: int
    """0 where the record does not parse."""
    photo_number: int | None
    """None: the whole record is given up."""
    reason: str
    message: str
    step: str


def given_up_of(record: InRecord) -> GivenUp:
    """Return what a record of a ``.dlq`` topic says."""
    headers = {name: value.decode(errors="replace") for name, value in record.headers}
    topic = headers.get("shashin-topic", record.topic.removesuffix(DEAD_LETTER_SUFFIX))
    listing_id, version = (record.key or b"").decode(errors="replace"), 0
    if topic in _VALUES:
        value = _VALUES[topic]()
        try:
            value.ParseFromString(record.value)
            listing_id, version = value.listing_id or listing_id, value.version
        except DecodeError:
            pass
    number = headers.get("shashin-photo-number", "")
    return GivenUp(
        topic=topic,
        partition=int(headers.get("shashin-partition", -1)),
        offset=int(headers.get("shashin-offset", -1)),
        listing_id=listing_id,
        version=version,
        photo_number=int(number) if headers.get("shashin-scope") == "photo" and number else None,
        reason=headers.get("shashin-error", "unknown"),
        message=headers.get("shashin-message", ""),
        step=headers.get("shashin-step", ""),
    )


class TopicTail:
    """One topic, read on from where it was last read."""

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader
        self._at: dict[int, int] = {}

    async def go_to_end(self) -> None:
        """Leave out what is there already."""
        self._at = await self._reader.end_offsets(await self._reader.partitions())

    async def go_to_begin(self) -> None:
        """Read everything that the topic still holds."""
        self._at = await self._reader.begin_offsets(await self._reader.partitions())

    async def end(self) -> int:
        """Return the sum of the partitions' end offsets: how many records were ever written."""
        return sum((await self._reader.end_offsets(list(self._at))).values())

    async def news(
        self, wanted: Callable[[InRecord], bool] = lambda _record: True
    ) -> list[InRecord]:
        """Return the wanted records between the last read and the end as of now."""
        ends = await self._reader.end_offsets(list(self._at))
        due = {partition: end for partition, end in ends.items() if self._at[partition] < end}
        found: list[InRecord] = []
        if not due:
            return found
        self._reader.start_at({partition: self._at[partition] for partition in due})
        while any(self._at[partition] < end for partition, end in due.items()):
            for partition, records in (
                await self._reader.read(timeout_seconds=1.0, max_records=1000)
            ).items():
                found += filter(wanted, records)
                self._at[partition] = records[-1].offset + 1
            for partition in due:
                # Compaction leaves holes, so a position may be past the last record seen.
                self._at[partition] = max(
                    self._at[partition], await self._reader.position(partition)
                )
        return found


@asynccontextmanager
async def topic_tails(bootstrap: str, topics: Iterable[str]) -> AsyncIterator[dict[str, TopicTail]]:
    """Open a tail at the beginning of each topic.

    Raises:
        KafkaUnavailable: when the broker does not answer or a topic does not exist.
    """
    async with AsyncExitStack() as stack:
        tails = {}
        for topic in topics:
            reader = await stack.enter_async_context(
                LogReader(bootstrap, topic, client_id=CLIENT_ID)
            )
            tails[topic] = TopicTail(reader)
            await tails[topic].go_to_begin()
        yield tails


DEAD_LETTER_TOPICS = tuple(topic + DEAD_LETTER_SUFFIX for topic in _VALUES)


async def new_dead_letters(tails: Mapping[str, TopicTail]) -> list[GivenUp]:
    """Return the dead letters since the last call, of the ``.dlq`` topics among the tails."""
    return [
        given_up_of(record)
        for topic in DEAD_LETTER_TOPICS
        if topic in tails
        for record in await tails[topic].news()
    ]


def hidden_below(records: Iterable[InRecord]) -> dict[str, int]:
    """Return each listing's lowest visible version, from records of ``listings.hidden``."""
    below: dict[str, int] = {}
    for record in records:
        if record.topic != LISTINGS_HIDDEN or not record.value:
            continue
        hidden = events_pb2.HiddenListing.FromString(record.value)
        below[hidden.listing_id] = max(below.get(hidden.listing_id, 0), hidden.below_version)
    return below
