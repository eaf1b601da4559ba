"""One whole system for all drills of it, with a canary."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.kafka_fixtures import broker, embedded_kafka, kafka, log_folder
from tests.support.running_system import RunningSystem
from tests.support.system_fixtures import system

__all__ = ["broker", "embedded_kafka", "kafka", "log_folder", "system"]

SETTINGS = {
    # A cycle of the canary is as short as that of a rule, so that it fails as soon as something does.
    "SHASHIN_EVERY_SECONDS": "1",
    "SHASHIN_FOUND_LIMIT_SECONDS": "6",
    "SHASHIN_GONE_LIMIT_SECONDS": "6",
}


@pytest.fixture(scope="session")
def running_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """All processes of ``shashin up`` with their own Kafka, and a canary."""
    running = RunningSystem(tmp_path_factory.mktemp("system"), canary=True)
    with pytest.MonkeyPatch.context() as patched:
        for name, value in SETTINGS.items():
            patched.setenv(name, value)
        try:
            asyncio.run(running.start())
            yield running
        finally:
            asyncio.run(running.stop())
