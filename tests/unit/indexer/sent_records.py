"""A fake producer that records what is sent."""

from __future__ import annotations

from collections.abc import Iterable

from shashin.kafka.producer import OutRecord


class SentRecords:
    def __init__(self) -> None:
        self.records: list[OutRecord] = []

    async def send_all(self, records: Iterable[OutRecord]) -> None:
        self.records += records
