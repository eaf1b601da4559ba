"""Writes to Kafka: idempotent, and acknowledged by all replicas before offsets are committed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from shashin.errors import KafkaUnavailable, RecordError
from shashin.kafka.record_spans import published
from shashin.kafka.topics import LISTINGS_EVENTS, MAX_DEAD_LETTER_BYTES
from shashin.runtime import tracing
from shashin.runtime.failpoints import failpoint

DELIVERY_SECONDS = 15.0
"""Maximum wait for an acknowledgement; also how soon an outage is detected."""

_STOP_SECONDS = 5.0


@dataclass(frozen=True)
class OutRecord:
    """A record to write; the key determines the partition unless one is given."""

    topic: str
    key: bytes | None
    value: bytes
    headers: Sequence[tuple[str, bytes | None]] = ()
    partition: int | None = None


@dataclass(frozen=True)
class Acknowledged:
    """Where the broker wrote a record."""

    partition: int
    offset: int


class Producer:
    """A started producer, one per process.

    After a failure it is recreated with a new producer id. If a batch expires while the broker is
    unavailable, aiokafka's idempotent producer can be left with sequence numbers that the broker
    never saw, and then retries forever (https://github.com/aio-libs/aiokafka/issues/1017).
    Unacknowledged records may therefore be written twice, which every reader tolerates.
    """

    def __init__(
        self, bootstrap: str, *, client_id: str, delivery_seconds: float = DELIVERY_SECONDS
    ) -> None:
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._delivery_seconds = delivery_seconds
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self._started()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections, if there are any."""
        if self._producer is not None:
            await self._abandon(self._producer)  # nothing is pending: send_all has returned

    async def send_all(self, records: Iterable[OutRecord]) -> list[Acknowledged]:
        """Write the records, wait until all replicas have them, and return where each is.

        While tracing is on, each listing event begins a trace here, unless it has one.

        Raises:
            RecordError: when a record is larger than its topic allows.
            KafkaUnavailable: when the broker did not acknowledge; some may have been written.
        """
        if (tracer := tracing.tracer()) is None:
            return await self._send_all(records)
        with published(tracer, list(records), _begins_a_trace) as traced:
            return await self._send_all(traced)

    async def _send_all(self, records: Iterable[OutRecord]) -> list[Acknowledged]:
        producer = await self._started()
        try:
            async with asyncio.timeout(self._delivery_seconds):
                futures = []
                for record in records:
                    futures.append(await self._send(producer, record))
                    failpoint("amid-produce")
                written = await asyncio.gather(*futures)
        except MessageSizeTooLargeError as error:
            raise RecordError(f"a record is larger than its topic allows: {error}") from error
        except (KafkaError, TimeoutError) as error:
            await self._abandon(producer)
            raise KafkaUnavailable(
                f"kafka at {self._bootstrap} did not acknowledge: {error!r}"
            ) from error
        return [Acknowledged(metadata.partition, metadata.offset) for metadata in written]

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                fresh = AIOKafkaProducer(
                    bootstrap_servers=self._bootstrap,
                    client_id=self._client_id,
                    acks="all",
                    enable_idempotence=True,
                    max_request_size=MAX_DEAD_LETTER_BYTES,
                    linger_ms=0,
                    request_timeout_ms=10_000,
                )
                try:
                    await fresh.start()
                except KafkaError as error:
                    await fresh.stop()
                    raise KafkaUnavailable(
                        f"kafka at {self._bootstrap} does not respond: {error}"
                    ) from error
                self._producer = fresh
            return self._producer

    async def _abandon(self, producer: AIOKafkaProducer) -> None:
        """Close a producer without flushing: unlike stop(), which may wait forever."""
        if self._producer is producer:
            self._producer = None
        producer._closed = True  # noqa: SLF001
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await producer._sender.close()  # noqa: SLF001
        except (KafkaError, TimeoutError):
            pass  # No response came in time, or the sender had already failed.
        finally:
            await producer.client.close()

    async def _send(self, producer: AIOKafkaProducer, record: OutRecord) -> asyncio.Future[Any]:
        sent: asyncio.Future[Any] = await producer.send(
            record.topic,
            record.value,
            key=record.key,
            partition=record.partition,
            headers=list(record.headers),
        )
        return sent


def _begins_a_trace(record: OutRecord) -> bool:
    return record.topic == LISTINGS_EVENTS
