"""What the compose stack runs before its services: topics, and a bucket."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from shashin.kafka.topics import TOPICS
from shashin.objectstore.gcs import EMULATOR_VARIABLE
from tests.support.fake_gcs import SERVER_VARIABLE, FakeGcs
from tests.support.kafka_fixtures import PARTITIONS


@pytest.fixture
async def gcs(tmp_path: Path) -> AsyncIterator[FakeGcs]:
    if SERVER_VARIABLE not in os.environ:
        pytest.skip(f"needs {SERVER_VARIABLE}, the path of fake-gcs-server")
    server = FakeGcs(tmp_path / "gcs.log")
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


def set_up(**environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SHASHIN_")}
    command = [sys.executable, "-m", "shashin.local.stack_setup"]
    return subprocess.run(
        command, env={**kept, **environment}, capture_output=True, text=True, check=False
    )


async def test_topics_and_the_bucket_are_made_once(kafka: str, gcs: FakeGcs) -> None:
    environment = {
        "SHASHIN_KAFKA": kafka,
        EMULATOR_VARIABLE: gcs.url,
        "SHASHIN_REPOSITORY": "gs://of-the-stack/models",
        "SHASHIN_STACK_PARTITIONS": str(PARTITIONS),
    }
    for _ in range(2):
        finished = set_up(**environment)
        assert finished.returncode == 0, finished.stderr
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        assert {topic.name for topic in TOPICS} <= set(await admin.list_topics())
    finally:
        await admin.close()
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{gcs.url}/storage/v1/b/of-the-stack") as response,
    ):
        assert response.status == 200


def test_a_number_of_partitions_that_is_none_is_named() -> None:
    finished = set_up(SHASHIN_STACK_PARTITIONS="many")
    assert finished.returncode == 1
    assert finished.stderr == (
        "setup: SHASHIN_STACK_PARTITIONS='many' is no number of partitions: give one such as 2\n"
    )
