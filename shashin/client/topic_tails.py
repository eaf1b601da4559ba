"""Reading topics up to their end: listing events, dead letters and hidden listings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from shashin.kafka.dlq_entries import is_resolution, stored_dead_letter
from shashin.kafka.log_reader import LogReader
from shashin.kafka.records import InRecord
from shashin.kafka.topics import DEAD_LETTER_TOPICS, LISTINGS_HIDDEN
from shashin.v1 import events_pb2

CLIENT_ID = "shashin-cli"


@dataclass(frozen=True)
class SeenDeadLetter:
    """One dead letter: a record, or one photo of it."""

    topic: str
    """The topic of the record, without ``.dlq``."""
    partition: int
    offset: int
    listing_id: str
    version: int
    """0 if the record cannot be parsed."""
    photo_number: int | None
    """None if the whole record was dead-lettered."""
    reason: str
    message: str
    step: str


def seen_dead_letter(record: InRecord) -> SeenDeadLetter:
    """Return the dead letter in a record of a ``.dlq`` topic."""
    dead_letter = stored_dead_letter(record)
    return SeenDeadLetter(
        topic=dead_letter.topic,
        partition=dead_letter.origin.partition if dead_letter.origin is not None else -1,
        offset=dead_letter.origin.offset if dead_letter.origin is not None else -1,
        listing_id=dead_letter.listing_id,
        version=dead_letter.version,
        photo_number=dead_letter.photo_number,
        reason=dead_letter.reason,
        message=dead_letter.message,
        step=dead_letter.step,
    )


class TopicTail:
    """One topic; each read continues where the last one ended."""

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader
        self._at: dict[int, int] = {}

    async def go_to_end(self) -> None:
        """Skip the records that exist already."""
        self._at = await self._reader.end_offsets(await self._reader.partitions())

    async def go_to_begin(self) -> None:
        """Start at the beginning of the topic."""
        self._at = await self._reader.begin_offsets(await self._reader.partitions())

    async def end(self) -> int:
        """Return the sum of the partitions' end offsets: the number of records ever written."""
        return sum((await self._reader.end_offsets(list(self._at))).values())

    async def new_records(
        self, matches: Callable[[InRecord], bool] = lambda _record: True
    ) -> list[InRecord]:
        """Return the matching records between the last read and the current end."""
        ends = await self._reader.end_offsets(list(self._at))
        found = [record async for record in self._reader.between(self._at, ends) if matches(record)]
        self._at = ends
        return found


@asynccontextmanager
async def topic_tails(bootstrap: str, topics: Iterable[str]) -> AsyncIterator[dict[str, TopicTail]]:
    """Open a tail at the beginning of each topic.

    Raises:
        KafkaUnavailable: if the broker does not respond or a topic does not exist.
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


async def new_dead_letters(tails: Mapping[str, TopicTail]) -> list[SeenDeadLetter]:
    """Return the dead letters since the last call, of the ``.dlq`` topics among the tails."""
    return [
        seen_dead_letter(record)
        for topic in DEAD_LETTER_TOPICS
        if topic in tails
        for record in await tails[topic].new_records(lambda record: not is_resolution(record))
    ]


@dataclass(frozen=True)
class HiddenBelow:
    """The lowest visible version of a listing, and why the ones below are hidden."""

    version: int
    reason: events_pb2.HiddenReason.ValueType


def hides(listing_ids: Collection[str]) -> Callable[[InRecord], bool]:
    """Return whether a record of ``listings.hidden`` is of one of the listings, by its key."""
    keys = {listing_id.encode() for listing_id in listing_ids}
    return lambda record: (record.key or b"").rpartition(b"\0")[0] in keys


def hidden_below(records: Iterable[InRecord]) -> dict[str, HiddenBelow]:
    """Return each listing's lowest visible version, from records of ``listings.hidden``.

    A record that is not one of this topic is ignored.
    """
    below: dict[str, HiddenBelow] = {}
    for record in records:
        if record.topic != LISTINGS_HIDDEN or not record.value:
            continue
        try:
            hidden = events_pb2.HiddenListing.FromString(record.value)
        except (DecodeError, UnicodeDecodeError):
            continue
        known = below.get(hidden.listing_id)
        if known is None or hidden.below_version > known.version:
            below[hidden.listing_id] = HiddenBelow(hidden.below_version, hidden.reason)
    return below
