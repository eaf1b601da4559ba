"""What the indexer does with records of ``vectors.embedded``: parse, leave alone, or give up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from services.indexer import metrics
from services.indexer.partition import ParsedRecord
from shashin.codecs.events import new_rows_of, parse_embedded
from shashin.errors import RecordError
from shashin.kafka.dead_letters import DeadLetter
from shashin.kafka.producer import OutRecord
from shashin.kafka.records import InRecord
from shashin.kafka.topics import LISTINGS_HIDDEN, hidden_key
from shashin.model_space import ModelSpace
from shashin.v1 import events_pb2


@dataclass
class ParsedBatch:
    """Records of one partition, parsed."""

    records: list[ParsedRecord] = field(default_factory=list)
    """One a record of the log, in order."""
    superseding: dict[int, OutRecord] = field(default_factory=dict)
    """Offset to the record of listings.hidden that is due once its rows are searchable."""
    dead_letters: list[DeadLetter] = field(default_factory=list)


def parse_batch(records: Sequence[InRecord], space: ModelSpace) -> ParsedBatch:
    """Parse records; one that cannot be used adds no rows and becomes a dead letter."""
    batch = ParsedBatch()
    for record in records:
        rows = []
        try:
            message = parse_embedded(record)
            if message.model_id != space.model_id:
                metrics.SKIPPED.inc()
            else:
                rows = new_rows_of(message, space.dimensions, record=record)
                # A version without a photo replaces nothing: the older ones stay searchable.
                if message.version > 1 and rows:
                    batch.superseding[record.offset] = superseded(message)
        except RecordError as error:
            batch.dead_letters.append(DeadLetter(record, error, step="indexer.parse"))
        batch.records.append(ParsedRecord(record.offset, record.timestamp_ms, rows))
    return batch


def superseded(message: events_pb2.EmbeddedListing) -> OutRecord:
    """Return the record that hides the listing's older versions.

    The first version has none before it, so nothing is written for it.
    """
    hidden = events_pb2.HiddenListing(
        listing_id=message.listing_id,
        below_version=message.version,
        reason=events_pb2.HIDDEN_REASON_SUPERSEDED,
        occurred_at=message.occurred_at,
    )
    key = hidden_key(message.listing_id, message.version)
    return OutRecord(LISTINGS_HIDDEN, key, hidden.SerializeToString())
