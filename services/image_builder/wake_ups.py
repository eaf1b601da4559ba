"""Wakes the builder for each record of ``indexes.sealed``.

FastStream's defaults are enough, since a lost record costs at most ``resync_seconds``. Without a
consumer group every builder sees every new record and nothing is committed; the content of records
is ignored.
"""

from __future__ import annotations

from collections.abc import Callable

from faststream import AckPolicy
from faststream.kafka import KafkaBroker

from shashin.errors import KafkaUnavailable, WrongTopicSettings
from shashin.kafka.broker_check import BrokerCheck
from shashin.kafka.topic_admin import check_topics
from shashin.kafka.topics import INDEXES_SEALED
from shashin.runtime.scope import Loop, LoopScope

_CHECK_SECONDS = 1.0


class WakeUps:
    """Calls ``wake`` for each record."""

    def __init__(self, bootstrap: str, wake: Callable[[], None]) -> None:
        self._bootstrap = bootstrap
        self._wake = wake

    def loop(self) -> Loop:
        """Return the loop; readiness does not depend on it."""
        return Loop(f"{INDEXES_SEALED} listener", self.run)

    async def run(self, loop: LoopScope) -> None:
        """Listen until stopped."""
        broker = KafkaBroker(self._bootstrap, client_id="image-builder", logger=None)

        subscriber = broker.subscriber(
            INDEXES_SEALED, auto_offset_reset="latest", ack_policy=AckPolicy.ACK_FIRST
        )

        @subscriber
        async def sealed(_body: bytes) -> None:
            self._wake()

        async def start() -> None:
            try:
                await broker.start()
            except Exception as error:
                raise KafkaUnavailable(
                    f"kafka at {self._bootstrap} does not respond: {error}"
                ) from error

        try:
            # The builder needs no wake-up to go on: with a wrong setting, a resync finds new shards.
            await loop.retry(
                "settings of topics",
                lambda: check_topics(self._bootstrap, [INDEXES_SEALED]),
                also=(WrongTopicSettings,),
            )
            await loop.retry(f"kafka at {self._bootstrap}", start)
            # FastStream retries silently.
            check = BrokerCheck(subscriber.consumer, self._bootstrap, loop)
            while await loop.sleep(_CHECK_SECONDS):
                await check.check()
        finally:
            await broker.stop()
