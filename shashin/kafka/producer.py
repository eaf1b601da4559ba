"""Writing to Kafka: idempotent, acknowledged by all replicas, awaited before anything is committed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from shashin.errors import KafkaUnavailable, RecordError
from shashin.kafka.topics import MAX_DEAD_LETTER_BYTES


@dataclass(frozen=True)
class OutRecord:
    """A record to be written; the key decides the partition unless one is named."""

    topic: str
    key: bytes | None
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()
    partition: int | None = None


class Producer:
    """A started producer; one a process."""

    def __init__(self, bootstrap: str, *, client_id: str) -> None:
        self._bootstrap = bootstrap
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap,
            client_id=client_id,
            acks="all",
            enable_idempotence=True,
            max_request_size=MAX_DEAD_LETTER_BYTES,
            linger_ms=0,
            request_timeout_ms=30_000,
        )

    async def __aenter__(self) -> Producer:
        try:
            await self._producer.start()
        except KafkaError as error:
            await self._producer.stop()
            raise KafkaUnavailable(
                f"kafka at {self._bootstrap} does not answer: {error}"
            ) from error
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._producer.stop()

    async def send_all(self, records: Iterable[OutRecord]) -> None:
        """Write the records and wait until all replicas have them.

        Raises:
            RecordError: when a record is larger than its topic takes.
            KafkaUnavailable: when the broker did not acknowledge; some may have been written.
        """
        try:
            futures = [
                await self._producer.send(
                    record.topic,
                    record.value,
                    key=record.key,
                    partition=record.partition,
                    headers=list(record.headers),
                )
                for record in records
            ]
            if futures:
                await asyncio.gather(*futures)
        except MessageSizeTooLargeError as error:
            raise RecordError(f"a record is larger than its topic takes: {error}") from error
        except KafkaError as error:
            raise KafkaUnavailable(f"kafka did not acknowledge: {error!r}") from error
