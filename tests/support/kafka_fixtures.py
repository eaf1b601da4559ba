"""Fixtures of a real Kafka, one per test worker, for the conftest.py that imports them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shashin.local.kafka import EmbeddedKafka
from shashin.local.ports import free_port
from tests.support.fresh_topics import fresh_topics

PARTITIONS = 2


@pytest.fixture(scope="session")
def embedded_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka | None]:
    """An embedded Kafka; None with that of SHASHIN_TEST_KAFKA (then run one worker)."""
    if os.environ.get("SHASHIN_TEST_KAFKA"):
        yield None
        return
    embedded = EmbeddedKafka(tmp_path_factory.mktemp("kafka"), port=free_port())
    asyncio.run(embedded.start())
    try:
        yield embedded
    finally:
        asyncio.run(embedded.stop())


@pytest.fixture(scope="session")
def broker(embedded_kafka: EmbeddedKafka | None) -> str:
    """Bootstrap servers."""
    if embedded_kafka is None:
        return os.environ["SHASHIN_TEST_KAFKA"]
    return embedded_kafka.bootstrap


@pytest.fixture
def log_folder(embedded_kafka: EmbeddedKafka | None) -> Path:
    """Where the broker keeps the log, a folder per partition."""
    if embedded_kafka is None:
        pytest.skip("the files of the Kafka in SHASHIN_TEST_KAFKA cannot be reached")
    return embedded_kafka.folder / "data"


@pytest.fixture
async def kafka(broker: str) -> str:
    """Bootstrap servers with every topic new and empty."""
    await fresh_topics(broker, partitions=PARTITIONS)
    return broker
