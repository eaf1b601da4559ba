"""An app with another client library: every codec, and transactions of which some are aborted."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import cycle

from confluent_kafka import KafkaException, Producer

from shashin.kafka.producer import OutRecord

CODECS = ("snappy", "lz4", "zstd", "gzip")

_SECONDS = 20.0


class ForeignApp:
    """Sends batches with librdkafka, each with the next codec; every other one in a transaction."""

    def __init__(self, kafka: str) -> None:
        self._kafka = kafka
        self._codecs = cycle(CODECS)
        self._transactional = cycle((False, True))
        self.batches: Counter[str] = Counter()
        """Batches that are known to be written, by codec."""
        self.committed = 0
        self.aborted = 0
        """Transactions, with records in them."""

    async def send(self, records: Sequence[OutRecord], aborted: Sequence[OutRecord]) -> bool:
        """Send a batch; returns False if it is not known to be written.

        A transaction with the records of ``aborted`` is aborted first: they must never take effect.
        """
        return await asyncio.to_thread(self._send, records, aborted)

    def _send(self, records: Sequence[OutRecord], aborted: Sequence[OutRecord]) -> bool:
        codec = next(self._codecs)
        config = {
            "bootstrap.servers": self._kafka,
            "compression.type": codec,
            # As Java's and this project's producers: a listing's events keep their partition.
            "partitioner": "murmur2_random",
            "delivery.timeout.ms": 15_000,
            "log_level": 0,
        }
        if next(self._transactional):
            written = self._send_in_transactions(config, records, aborted)
        else:
            written = _written(Producer(config), records)
        self.batches[codec] += written
        return written

    def _send_in_transactions(
        self,
        config: Mapping[str, object],
        records: Sequence[OutRecord],
        aborted: Sequence[OutRecord],
    ) -> bool:
        producer = Producer(
            {**config, "transactional.id": "chaos", "transaction.timeout.ms": 15_000}
        )
        try:
            producer.init_transactions(_SECONDS)
            if aborted:
                producer.begin_transaction()
                written = _written(producer, aborted)
                producer.abort_transaction(_SECONDS)
                self.aborted += written
            producer.begin_transaction()
            if _written(producer, records):
                producer.commit_transaction(_SECONDS)
                self.committed += 1
                return True
            producer.abort_transaction(_SECONDS)
        except KafkaException:
            with contextlib.suppress(KafkaException):
                producer.abort_transaction(_SECONDS)
        return False


def _written(producer: Producer, records: Sequence[OutRecord]) -> bool:
    errors: list[object] = []
    for record in records:
        producer.produce(
            record.topic,
            key=record.key,
            value=record.value,
            on_delivery=lambda error, _: errors.append(error) if error else None,
        )
    return producer.flush(_SECONDS) == 0 and not errors
