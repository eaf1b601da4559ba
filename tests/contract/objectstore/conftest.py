"""What tests of object stores share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from google.cloud.storage.retry import DEFAULT_RETRY

from shashin.objectstore.gcs import EMULATOR_VARIABLE
from shashin.objectstore.protocol import ObjectStore
from tests.contract.conftest import require_gcs
from tests.support.fake_gcs import FakeGcs


def names_in(folder: Path) -> list[str]:
    """Return the names of all files in a folder, including hidden ones."""
    return sorted(path.name for path in folder.iterdir())


async def streamed(store: ObjectStore, key: str) -> list[bytes]:
    """Return the chunks of an object."""
    async with aclosing(store.stream(key)) as chunks:
        return [chunk async for chunk in chunks]


@pytest.fixture(autouse=True)
def no_thread_outlives_its_test(monkeypatch: pytest.MonkeyPatch) -> None:
    # For traces, the client library requests the bucket's metadata in a separate thread, which
    # keeps retrying for two minutes after the server is gone.
    monkeypatch.setenv("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")


@pytest.fixture
async def lasting_gcs(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[FakeGcs]:
    """A server for one test, with an empty bucket that survives a kill."""
    require_gcs()
    folder = tmp_path_factory.mktemp("lasting-gcs")
    server = FakeGcs(folder / "log", root=folder / "buckets")
    monkeypatch.setenv(EMULATOR_VARIABLE, server.url)
    try:
        await server.start()
        await server.make_bucket()
        yield server
    finally:
        await server.kill()


@pytest.fixture
def few_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make both adapters give up soon: their patience is not under test."""
    monkeypatch.setattr("shashin.objectstore.gcs._RETRY", DEFAULT_RETRY.with_timeout(0.2))
    monkeypatch.setattr("shashin.objectstore.s3_client.RETRY_SECONDS", 0.2)
