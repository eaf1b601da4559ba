"""Parses records of ``vectors.embedded``: into rows, skipped records and DLQ entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from services.indexer.partition import ParsedRecord
from shashin.codecs.events import new_rows_of, parse_embedded
from shashin.errors import RecordError, UnparsableRecord
from shashin.kafka.dead_letters import DeadLetter
from shashin.kafka.event_time import event_ms
from shashin.kafka.producer import OutRecord
from shashin.kafka.records import InRecord
from shashin.kafka.topics import LISTINGS_HIDDEN, hidden_key
from shashin.metrics import indexer as metrics
from shashin.model_space import ModelSpace
from shashin.v1 import events_pb2


@dataclass
class ParsedBatch:
    """Parsed records of one partition."""

    records: list[ParsedRecord] = field(default_factory=list)
    """One per record of the log, in log order."""
    superseding: dict[int, OutRecord] = field(default_factory=dict)
    """By offset, the records of listings.hidden to write once the rows are searchable."""
    dead_letters: list[DeadLetter] = field(default_factory=list)


def parse_batch(records: Sequence[InRecord], space: ModelSpace) -> ParsedBatch:
    """Parse records; an invalid record adds no rows and is dead-lettered."""
    batch = ParsedBatch()
    for record in records:
        rows = []
        try:
            if record.problem:
                raise UnparsableRecord(f"{record}: {record.problem}")
            message = parse_embedded(record)
            if message.model_id != space.model_id:
                metrics.SKIPPED.inc()
            else:
                rows = new_rows_of(message, space.dimensions, record=record)
                # A version without photos supersedes nothing: older versions stay searchable.
                if message.version > 1 and rows:
                    batch.superseding[record.offset] = superseded(message)
        except RecordError as error:
            batch.dead_letters.append(DeadLetter(record, error, step="indexer.parse"))
        batch.records.append(
            ParsedRecord(record.offset, record.timestamp_ms, rows, event_ms(record))
        )
    return batch


def superseded(message: events_pb2.EmbeddedListing) -> OutRecord:
    """Return the record that hides the listing's older versions.

    Version 1 needs none, since it has no older versions.
    """
    hidden = events_pb2.HiddenListing(
        listing_id=message.listing_id,
        below_version=message.version,
        reason=events_pb2.HIDDEN_REASON_SUPERSEDED,
        occurred_at=message.occurred_at,
    )
    key = hidden_key(message.listing_id, message.version)
    return OutRecord(LISTINGS_HIDDEN, key, hidden.SerializeToString())
