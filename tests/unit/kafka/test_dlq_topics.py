"""Replaying: records are sent and acknowledged before their entries are resolved."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import pytest

from shashin.errors import KafkaUnavailable
from shashin.kafka.dlq_entries import DlqEntryId, entries_of
from shashin.kafka.dlq_topics import DlqTopics, replay_records
from shashin.kafka.producer import OutRecord, Producer
from shashin.kafka.records import InRecord
from shashin.kafka.replay_plan import plan_replays
from shashin.kafka.topics import LISTINGS_EVENTS
from tests.unit.kafka.dead_letter_records import dead_letter, stored

DLQ = LISTINGS_EVENTS + ".dlq"


class Topics:
    """A log of dead letters and a producer that appends to it; can refuse a topic."""

    def __init__(self, records: Iterable[InRecord]) -> None:
        self.dead_letters = list(records)
        self.sent: list[OutRecord] = []
        self.refused = ""

    async def records(self, ids: Iterable[DlqEntryId]) -> dict[DlqEntryId, InRecord]:
        return {i: next(r for r in self.dead_letters if r.offset == i.offset) for i in ids}

    async def send_all(self, records: Iterable[OutRecord]) -> None:
        for record in records:
            if record.topic == self.refused:
                raise KafkaUnavailable("kafka did not acknowledge")
            if record.topic == DLQ:
                self.dead_letters.append(stored(record, 100 + len(self.dead_letters)))
            else:
                self.sent.append(record)

    async def replay(self) -> None:
        entries = entries_of(self.dead_letters)
        replays = plan_replays(entries, [e.dead_letter.entry_id for e in entries])
        await replay_records(cast("DlqTopics", self), cast("Producer", self), replays)

    @property
    def open(self) -> int:
        return sum(entry.open for entry in entries_of(self.dead_letters))


async def test_a_record_that_kafka_did_not_acknowledge_leaves_its_entry_open() -> None:
    topics = Topics([dead_letter(0), dead_letter(1, origin=(0, 1))])
    topics.refused = LISTINGS_EVENTS
    with pytest.raises(KafkaUnavailable):
        await topics.replay()
    assert (topics.open, topics.sent) == (2, [])


async def test_a_crash_before_the_resolution_sends_the_records_again_and_loses_none() -> None:
    topics = Topics([dead_letter(0), dead_letter(1, origin=(0, 1))])
    topics.refused = DLQ
    with pytest.raises(KafkaUnavailable):
        await topics.replay()
    assert topics.open == 2
    topics.refused = ""
    await topics.replay()
    assert topics.open == 0
    assert len(topics.sent) == 4


async def test_a_resolved_record_is_not_sent_again() -> None:
    topics = Topics([dead_letter(0)])
    await topics.replay()
    await topics.replay()
    assert len(topics.sent) == 1
