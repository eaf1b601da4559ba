"""The adapters to test: always ``file``, and ``gs`` if there is a server for it."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from google.cloud.storage.retry import DEFAULT_RETRY

from shashin.objectstore.gcs import EMULATOR_VARIABLE
from shashin.objectstore.open import open_object_store
from shashin.objectstore.protocol import ObjectStore
from tests.support.fake_gcs import BUCKET, SERVER_VARIABLE, FakeGcs

HAS_GCS = SERVER_VARIABLE in os.environ
ADAPTERS = ["file", "gs"] if HAS_GCS else ["file"]

collect_ignore = [] if HAS_GCS else ["test_gcs_store.py"]

OpenStore = Callable[[], ObjectStore]


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


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeGcs]:
    """A server with an empty bucket, one per test worker."""
    server = FakeGcs(tmp_path_factory.mktemp("gcs") / "log")
    try:
        asyncio.run(server.start())
        asyncio.run(server.make_bucket())
        yield server
    finally:
        asyncio.run(server.kill())


@pytest.fixture(params=ADAPTERS)
def open_store(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> OpenStore:
    """Opens the same, initially empty, store again on every call, like separate processes."""
    if request.param == "file":
        uri = (tmp_path_factory.mktemp("file") / "the store").as_uri()
    else:
        server: FakeGcs = request.getfixturevalue("gcs")
        monkeypatch.setenv(EMULATOR_VARIABLE, server.url)
        uri = f"gs://{BUCKET}/{uuid.uuid4().hex}/the%20store"
    return lambda: open_object_store(uri)


@pytest.fixture
def store(open_store: OpenStore) -> ObjectStore:
    return open_store()


@pytest.fixture
async def lasting_gcs(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[FakeGcs]:
    """A server for one test, with an empty bucket that survives a kill."""
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
    """Make the client library give up soon: its retries are not under test."""
    monkeypatch.setattr("shashin.objectstore.gcs._RETRY", DEFAULT_RETRY.with_timeout(0.2))
