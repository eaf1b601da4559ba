"""The image builder's wake-ups: no odd record stops those of later records."""

from __future__ import annotations

from typing import Any

import pytest

from services.image_builder.wake_ups import WakeUps
from shashin.kafka.topics import INDEXES_SEALED
from shashin.runtime.health import Health
from tests.support.foreign_producer import produce, produce_batch
from tests.support.loops import running
from tests.support.record_batches import batch_of, replaced
from tests.support.waiting import until


class Woken:
    """Counts wake-ups, and the records that may cause them."""

    def __init__(self) -> None:
        self.times = 0
        self.sent = 0

    def wake(self) -> None:
        self.times += 1

    def send(self, kafka: str, record: dict[str, Any]) -> None:
        produce(kafka, INDEXES_SEALED, [record])
        self.sent += 1

    async def until_woken_by(self, kafka: str, record: dict[str, Any]) -> None:
        """Send a record until there are more wake-ups than all earlier records can have caused.

        It is repeated since a new listener begins at the end of the topic.
        """
        sent_before = self.sent

        def woken() -> bool:
            self.send(kafka, record)
            return self.times > sent_before

        await until(woken, "it wakes")


@pytest.mark.parametrize(
    "record",
    [
        {"value": None},
        {"value": b""},
        {"value": b"\xff\x00"},
        {"value": b"x", "headers": [("trace", None)]},
        {"value": b"x", "headers": [("trace", b"\xff"), ("content-type", b"\xfe")]},
        {"value": b"x", "headers": [("correlation_id", b"\xff"), ("reply_to", b"nowhere")]},
        {"value": b"{", "headers": [("content-type", b"application/json")]},
    ],
    ids=["tombstone", "empty", "binary", "null header", "binary headers", "reply", "broken json"],
)
async def test_an_odd_record_stops_no_later_wake_up(kafka: str, record: dict[str, Any]) -> None:
    woken, health = Woken(), Health()
    async with running(WakeUps(kafka, woken.wake).loop(), health=health):
        await woken.until_woken_by(kafka, {"value": b"first"})
        woken.send(kafka, record)
        await woken.until_woken_by(kafka, {"value": b"later"})
        assert health.problems() == []


async def test_a_header_name_that_is_not_utf8_stops_no_later_wake_up(kafka: str) -> None:
    woken = Woken()
    async with running(WakeUps(kafka, woken.wake).loop()):
        await woken.until_woken_by(kafka, {"value": b"first"})
        odd = replaced(batch_of([(None, b"x", [("nme", b"1")])]), b"nme", b"n\xe9e")
        await produce_batch(kafka, INDEXES_SEALED, 0, odd)
        woken.sent += 1
        await woken.until_woken_by(kafka, {"value": b"later"})
