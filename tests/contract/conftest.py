"""The object stores to test with: ``file``, ``s3``, and ``gs`` if there is a server."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import pytest

from shashin.objectstore.gcs import EMULATOR_VARIABLE
from shashin.objectstore.open import open_object_store
from shashin.objectstore.protocol import ObjectStore
from tests.support import fake_gcs, seaweed
from tests.support.fake_gcs import FakeGcs
from tests.support.seaweed import SeaweedFs

ADAPTERS = ["file", "gs", "s3"]

OpenStore = Callable[[], ObjectStore]


def require_gcs() -> None:
    """Skip a test if there is no server of Google Cloud Storage to start."""
    if fake_gcs.SERVER_VARIABLE not in os.environ:
        pytest.skip(f"needs {fake_gcs.SERVER_VARIABLE}, the path of fake-gcs-server")


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeGcs]:
    """A server with an empty bucket, one per test worker."""
    require_gcs()
    server = FakeGcs(tmp_path_factory.mktemp("gcs") / "log")
    try:
        asyncio.run(server.start())
        asyncio.run(server.make_bucket())
        yield server
    finally:
        asyncio.run(server.kill())


@pytest.fixture(scope="session")
def s3_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """The variables for boto to use a server with a bucket, one per test worker."""
    if given := os.environ.get(seaweed.SERVER_VARIABLE):
        yield {"AWS_ENDPOINT_URL": given}
        return
    server = SeaweedFs(tmp_path_factory.mktemp("seaweed"))
    try:
        asyncio.run(server.start())
        yield server.environment
    finally:
        asyncio.run(server.kill())


@pytest.fixture
def s3(s3_environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of an empty folder on an S3 server, whose variables are set."""
    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{seaweed.BUCKET}/{uuid.uuid4().hex}/the%20store"


@pytest.fixture(params=ADAPTERS)
def store_uri(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """The URI of an initially empty store, once for each adapter."""
    if request.param == "file":
        return (tmp_path_factory.mktemp("file") / "the store").as_uri()
    if request.param == "s3":
        return str(request.getfixturevalue("s3"))
    server: FakeGcs = request.getfixturevalue("gcs")
    monkeypatch.setenv(EMULATOR_VARIABLE, server.url)
    return f"gs://{fake_gcs.BUCKET}/{uuid.uuid4().hex}/the%20store"


@pytest.fixture
async def open_store(store_uri: str) -> AsyncIterator[OpenStore]:
    """Opens the same store again on every call, like separate processes."""
    opened: list[ObjectStore] = []

    def open_it() -> ObjectStore:
        opened.append(open_object_store(store_uri))
        return opened[-1]

    yield open_it
    await asyncio.gather(*(store.close() for store in opened))


@pytest.fixture
def store(open_store: OpenStore) -> ObjectStore:
    return open_store()
