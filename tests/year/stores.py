"""The object store of the year: Google Cloud Storage's API if there is a server, else a folder."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from shashin.objectstore.gcs import EMULATOR_VARIABLE
from shashin.objectstore.open import opened_object_store
from shashin.objectstore.protocol import ObjectStore
from tests.support.fake_gcs import BUCKET, SERVER_VARIABLE, FakeGcs


@asynccontextmanager
async def opened_store(folder: Path) -> AsyncIterator[tuple[ObjectStore, str]]:
    """Start a server if there is one; yields an empty store and its URI."""
    if SERVER_VARIABLE not in os.environ:
        uri = (folder / "repository").as_uri()
        async with opened_object_store(uri) as store:
            yield store, uri
        return
    server = FakeGcs(folder / "gcs.log")
    os.environ[EMULATOR_VARIABLE] = server.url
    os.environ["DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA"] = "true"
    try:
        await server.start()
        await server.make_bucket()
        uri = f"gs://{BUCKET}/year"
        async with opened_object_store(uri) as store:
            yield store, uri
    finally:
        await server.kill()
