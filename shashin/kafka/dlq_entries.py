"""Dead letters as stored in their topics, and the resolutions that close them. Pure.

A single record cannot be deleted from a log. To close a dead letter, a *resolution* is appended to
the same partition: a record without a value whose headers name the entry's partition and offset,
and what was done with it. An entry is open until it has a resolution. Resolutions are younger than
their entries, so retention never deletes one before its entry.

Readers of a ``.dlq`` topic must skip resolutions (``is_resolution``).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from google.protobuf.message import DecodeError

from shashin.errors import UndecodableBatch, UserError
from shashin.kafka.dead_letters import TRUNCATED_FROM, Scope
from shashin.kafka.producer import OutRecord
from shashin.kafka.records import InRecord
from shashin.kafka.topics import (
    DEAD_LETTER_SUFFIX,
    DEAD_LETTER_TOPICS,
    IMAGES_DOWNLOADED,
    LISTINGS_EVENTS,
    VECTORS_EMBEDDED,
)
from shashin.v1 import events_pb2

UNKNOWN_REASON = "unknown"
"""The reason of a record in a ``.dlq`` topic that has none."""

_RESOLVES = "shashin-resolves"
_RESOLUTION = "shashin-resolution"
_AT = "shashin-at"

_MAX_MS = 253_370_764_800_000
"""The year 9999, the last that ``datetime`` supports."""

_ID = re.compile(r"(?P<topic>[^:]+)(:(?P<partition>\d{1,9}))?:(?P<offset>\d{1,18})", re.ASCII)

How = Literal["replayed", "dropped"]
ListingMessage = events_pb2.ListingEvent | events_pb2.DownloadedListing | events_pb2.EmbeddedListing
MESSAGES: dict[
    str,
    type[events_pb2.ListingEvent | events_pb2.DownloadedListing | events_pb2.EmbeddedListing],
] = {
    LISTINGS_EVENTS: events_pb2.ListingEvent,
    IMAGES_DOWNLOADED: events_pb2.DownloadedListing,
    VECTORS_EMBEDDED: events_pb2.EmbeddedListing,
}


@dataclass(frozen=True, order=True)
class DlqEntryId:
    """The position of a dead letter; written ``<topic>.dlq:<offset>``."""

    topic: str
    """Including ``.dlq``."""
    partition: int
    offset: int

    def __str__(self) -> str:
        # These topics have one partition by default.
        partition = f"{self.partition}:" if self.partition else ""
        return f"{self.topic}:{partition}{self.offset}"


def parse_entry_id(text: str) -> DlqEntryId:
    """Parse an id typed by a user.

    Raises:
        UserError: if it is invalid.
    """
    found = _ID.fullmatch(text)
    if found is None or found["topic"] not in DEAD_LETTER_TOPICS:
        raise UserError(
            f"{text!r} is not the id of a dead letter: expected TOPIC:OFFSET, such as "
            f"{DEAD_LETTER_TOPICS[0]}:12, with one of the topics {', '.join(DEAD_LETTER_TOPICS)}"
        )
    return DlqEntryId(found["topic"], int(found["partition"] or 0), int(found["offset"]))


@dataclass(frozen=True, order=True)
class Origin:
    """The position of the record that was dead-lettered."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


@dataclass(frozen=True)
class StoredDeadLetter:
    """A dead letter without its value, which may be megabytes large."""

    entry_id: DlqEntryId
    at_ms: int
    """Unix milliseconds at which it was dead-lettered."""
    listing_id: str
    """The record's key if the value has none; may be empty."""
    version: int
    """0 if the value does not parse."""
    reason: str
    message: str
    step: str
    attempts: int
    """0 if unknown."""
    scope: Scope
    photo_number: int | None
    """Set for the scope photo."""
    origin: Origin | None
    """None for a record that was not written by one of our services."""
    key: bytes | None
    value_bytes: int
    value_sha256: bytes
    truncated: bool = False
    """Whether only the beginning of the value is kept."""

    @property
    def replayable(self) -> bool:
        """Whether the entry has a whole record, and says where it came from."""
        return (
            self.origin is not None
            and not self.truncated
            and self.reason != UndecodableBatch.__name__
        )

    @property
    def topic(self) -> str:
        """The topic whose records are dead-lettered here, without ``.dlq``."""
        return self.entry_id.topic.removesuffix(DEAD_LETTER_SUFFIX)


@dataclass(frozen=True)
class Resolution:
    """What was done with a dead letter."""

    partition: int
    offset: int
    how: str
    """``replayed`` or ``dropped``."""
    at_ms: int


@dataclass(frozen=True)
class DlqEntry:
    """A dead letter and its resolution, if any."""

    dead_letter: StoredDeadLetter
    resolution: Resolution | None = None

    @property
    def open(self) -> bool:
        """Whether it has no resolution."""
        return self.resolution is None


def is_resolution(record: InRecord) -> bool:
    """Whether a record of a ``.dlq`` topic is a resolution, not a dead letter."""
    return any(name == _RESOLVES for name, _ in record.headers)


def message_of(topic: str, value: bytes) -> ListingMessage | None:
    """Parse a value of a topic; returns None if it does not parse."""
    if topic not in MESSAGES:
        return None
    message = MESSAGES[topic]()
    try:
        message.ParseFromString(value)
    except (DecodeError, UnicodeDecodeError):
        return None
    return message


def stored_dead_letter(record: InRecord) -> StoredDeadLetter:
    """Parse a record of a ``.dlq`` topic; missing or invalid headers get default values."""
    headers = _texts(record)
    topic = record.topic.removesuffix(DEAD_LETTER_SUFFIX)
    message = message_of(topic, record.value)
    listing_id = message.listing_id if message is not None else ""
    of_photo = headers.get("shashin-scope") == "photo"
    return StoredDeadLetter(
        entry_id=DlqEntryId(record.topic, record.partition, record.offset),
        at_ms=_time(_number(headers.get(_AT)), record.timestamp_ms),
        listing_id=listing_id or (record.key or b"").decode(errors="replace"),
        version=message.version if message is not None else 0,
        reason=headers.get("shashin-error") or UNKNOWN_REASON,
        message=headers.get("shashin-message", ""),
        step=headers.get("shashin-step", ""),
        attempts=_number(headers.get("shashin-attempts")) or 0,
        scope="photo" if of_photo else "record",
        photo_number=_number(headers.get("shashin-photo-number")) if of_photo else None,
        origin=_origin(topic, headers),
        key=record.key,
        value_bytes=len(record.value),
        value_sha256=hashlib.sha256(record.value).digest(),
        truncated=TRUNCATED_FROM in headers,
    )


def _texts(record: InRecord) -> dict[str, str]:
    """Return the headers as text, without those that are null."""
    return {
        name: value.decode(errors="replace") for name, value in record.headers if value is not None
    }


def _origin(topic: str, headers: dict[str, str]) -> Origin | None:
    partition = _number(headers.get("shashin-partition"))
    offset = _number(headers.get("shashin-offset"))
    # An entry is only ever replayed to the topic that this .dlq topic belongs to.
    if headers.get("shashin-topic") != topic or partition is None or offset is None:
        return None
    return Origin(topic, partition, offset)


def _number(text: str | None) -> int | None:
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 18):
        return None
    return int(text)


def _time(*candidates_ms: int | None) -> int:
    return next((ms for ms in candidates_ms if ms is not None and 0 <= ms < _MAX_MS), 0)


def resolution_of(record: InRecord) -> Resolution | None:
    """Parse a resolution; returns None for a dead letter, or if no entry is named."""
    headers = _texts(record)
    partition, _, offset = headers.get(_RESOLVES, "").partition("/")
    of_partition, of_offset = _number(partition), _number(offset)
    if of_partition is None or of_offset is None:
        return None
    return Resolution(
        of_partition,
        of_offset,
        headers.get(_RESOLUTION, UNKNOWN_REASON),
        _time(_number(headers.get(_AT)), record.timestamp_ms),
    )


def resolution_record(entry_id: DlqEntryId, how: How, *, at_ms: int) -> OutRecord:
    """Return the record that resolves a dead letter; ``at_ms`` is in Unix milliseconds."""
    headers = {
        _RESOLVES: f"{entry_id.partition}/{entry_id.offset}",
        _RESOLUTION: how,
        _AT: str(at_ms),
    }
    return OutRecord(
        topic=entry_id.topic,
        key=None,
        value=b"",
        headers=[(name, value.encode()) for name, value in headers.items()],
        partition=entry_id.partition,
    )


class DlqEntries:
    """The dead letters of ``.dlq`` topics and their state, built from records in partition order."""

    def __init__(self) -> None:
        self._dead_letters: dict[DlqEntryId, StoredDeadLetter] = {}
        self._resolutions: dict[DlqEntryId, Resolution] = {}

    def add(self, record: InRecord) -> None:
        """Add a record."""
        if not is_resolution(record):
            dead_letter = stored_dead_letter(record)
            self._dead_letters[dead_letter.entry_id] = dead_letter
            return
        resolution = resolution_of(record)
        if resolution is not None:
            resolved = DlqEntryId(record.topic, resolution.partition, resolution.offset)
            # The first resolution wins.
            self._resolutions.setdefault(resolved, resolution)

    def entries(self) -> list[DlqEntry]:
        """Return every dead letter, oldest first."""
        dead_letters = sorted(self._dead_letters.values(), key=lambda d: (d.at_ms, d.entry_id))
        return [
            DlqEntry(dead_letter, self._resolutions.get(dead_letter.entry_id))
            for dead_letter in dead_letters
        ]


def entries_of(records: Iterable[InRecord]) -> list[DlqEntry]:
    """Return every dead letter among the records, oldest first."""
    entries = DlqEntries()
    for record in records:
        entries.add(record)
    return entries.entries()
