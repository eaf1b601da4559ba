"""The real Kafka of the integration tests, one per test worker, and services as real processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from shashin.kafka.producer import Producer
from tests.support.kafka_fixtures import (
    broker,
    embedded_kafka,
    kafka,
    log_folder,
)
from tests.support.running_service import RunningService
from tests.support.running_system import RunningSystem
from tests.support.system_fixtures import system

__all__ = ["broker", "embedded_kafka", "kafka", "log_folder", "system"]


@pytest.fixture
async def producer(kafka: str) -> AsyncIterator[Producer]:
    async with Producer(kafka, client_id="test") as started:
        yield started


StartService = Callable[..., "asyncio.Future[RunningService]"]


@pytest.fixture
async def start_service(kafka: str, tmp_path: Path) -> AsyncIterator[Callable[..., object]]:
    """Start ``python -m services.NAME`` with settings and wait until it is ready."""
    async with AsyncExitStack() as stack:

        async def start(name: str, *, ready: bool = True, **settings: object) -> RunningService:
            service = RunningService(name, kafka, settings, log=tmp_path / "logs")
            stack.push_async_callback(service.close)
            await service.start()
            if ready:
                await service.until_ready()
            return service

        yield start


@pytest.fixture(scope="session")
def running_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """The whole system, one per test worker: all processes of ``shashin up`` with their own Kafka."""
    running = RunningSystem(tmp_path_factory.mktemp("system"))
    try:
        asyncio.run(running.start())
        yield running
    finally:
        asyncio.run(running.stop())
