"""Distinguishing an idle topic from an unavailable broker: the client library polls either silently."""

from __future__ import annotations

import asyncio
import time

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from shashin.runtime.logging import get_logger
from shashin.runtime.scope import LoopScope

_CHECK_SECONDS = 5.0

log = get_logger(__name__)


class BrokerCheck:
    """Reports a loop degraded while the broker of its consumer does not respond."""

    def __init__(self, consumer: AIOKafkaConsumer, bootstrap: str, loop: LoopScope) -> None:
        self._consumer = consumer
        self._bootstrap = bootstrap
        self._loop = loop
        self._next_check = 0.0

    def responded(self) -> None:
        """Note that the broker has responded: records were read."""
        self._loop.clear("kafka")

    async def check(self) -> None:
        """Send the broker a small request, at most once every few seconds."""
        now = time.monotonic()
        if now < self._next_check:
            return
        self._next_check = now + _CHECK_SECONDS
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                await self._consumer.end_offsets(self._consumer.assignment())
        except (KafkaError, TimeoutError):
            self._loop.degraded("kafka", f"{self._bootstrap} does not respond: waiting")
            log.warning("kafka does not respond: waiting", bootstrap=self._bootstrap)
        else:
            self._loop.clear("kafka")
