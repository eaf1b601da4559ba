"""Waking the builder for each record of ``indexes.sealed``.

FastStream's defaults do here, since a lost record costs at most ``resync_seconds``: without a group
every builder sees every record from now on, nothing is committed, and the repository is read again
whatever the record says.
"""

from __future__ import annotations

from collections.abc import Callable

from faststream import AckPolicy
from faststream.kafka import KafkaBroker

from shashin.errors import KafkaUnavailable
from shashin.kafka.topics import INDEXES_SEALED
from shashin.runtime.scope import Loop, LoopScope


class WakeUps:
    """Calls ``wake`` for each record."""

    def __init__(self, bootstrap: str, wake: Callable[[], None]) -> None:
        self._bootstrap = bootstrap
        self._wake = wake

    def loop(self) -> Loop:
        """Return the loop; the builder is ready without it."""
        return Loop(f"listener to {INDEXES_SEALED}", self.run)

    async def run(self, loop: LoopScope) -> None:
        """Listen until stopped."""
        broker = KafkaBroker(self._bootstrap, client_id="image-builder", logger=None)

        @broker.subscriber(
            INDEXES_SEALED, auto_offset_reset="latest", ack_policy=AckPolicy.ACK_FIRST
        )
        async def sealed(_body: bytes) -> None:
            self._wake()

        async def start() -> None:
            try:
                await broker.start()
            except Exception as error:
                raise KafkaUnavailable(
                    f"kafka at {self._bootstrap} does not answer: {error}"
                ) from error

        try:
            await loop.retry(f"kafka at {self._bootstrap}", start)
            await loop.until_stopped()
        finally:
            await broker.stop()
