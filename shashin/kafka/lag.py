"""How far a consumer is behind its topic, and how far ahead of the topic's retention."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from prometheus_client import Gauge

from shashin.kafka.positions import known_positions
from shashin.kafka.records import InRecord

LAG_RECORDS = Gauge(
    "shashin_consumer_lag_records",
    "Offsets of a partition that are not processed yet.",
    ["topic", "partition"],
)
LAG_SECONDS = Gauge(
    "shashin_consumer_lag_seconds",
    "Age of the last processed record of a partition, while others wait behind it; else 0.",
    ["topic", "partition"],
)
RETAINED = Gauge(
    "shashin_consumer_retained_records",
    "Offsets that the topic retains before the consumer's position. If it falls to 0 while the "
    "consumer lags, retention deletes records that were not read.",
    ["topic", "partition"],
)

_OBSERVE_SECONDS = 5.0


class Lag:
    """Measures one consumer's lag, at most once every few seconds."""

    def __init__(self, consumer: AIOKafkaConsumer, topic: str) -> None:
        self._consumer = consumer
        self._topic = topic
        self._last_ms: dict[int, int] = {}
        self._shown: set[int] = set()
        self._next = 0.0

    async def observe(self, read: Mapping[int, Sequence[InRecord]]) -> None:
        """Note records that were processed, and measure if it is time to."""
        for partition, records in read.items():
            self._last_ms[partition] = records[-1].timestamp_ms
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _OBSERVE_SECONDS
        positions = known_positions(self._consumer)
        try:
            begins = await self._consumer.beginning_offsets(list(positions))
            ends = await self._consumer.end_offsets(list(positions))
        except KafkaError:
            return  # BrokerCheck reports it.
        self._forget_others(list(positions))
        for tp, position in positions.items():
            lag = max(0, ends[tp] - position)
            last_ms = self._last_ms.get(tp.partition)
            age = time.time() - last_ms / 1000 if lag and last_ms is not None else 0.0
            LAG_RECORDS.labels(self._topic, tp.partition).set(lag)
            LAG_SECONDS.labels(self._topic, tp.partition).set(max(0.0, age))
            RETAINED.labels(self._topic, tp.partition).set(position - begins[tp])

    def _forget_others(self, assigned: Sequence[TopicPartition]) -> None:
        """Remove the metrics of partitions that another member has now."""
        now = {tp.partition for tp in assigned}
        for partition in self._shown - now:
            self._last_ms.pop(partition, None)
            for gauge in (LAG_RECORDS, LAG_SECONDS, RETAINED):
                gauge.remove(self._topic, str(partition))
        self._shown = now
