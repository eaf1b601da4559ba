"""The object store of the year: a real S3 server, or another one that is asked for."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from shashin.objectstore.gcs import EMULATOR_VARIABLE
from shashin.objectstore.open import opened_object_store
from shashin.objectstore.protocol import ObjectStore
from tests.support import fake_gcs, seaweed

STORES = ("s3", "gs", "file")


@asynccontextmanager
async def opened_store(kind: str, folder: Path) -> AsyncIterator[tuple[ObjectStore, str]]:
    """Start a server of this kind; yields an empty store and its URI."""
    if kind == "file":
        async with _opened((folder / "repository").as_uri()) as opened:
            yield opened
        return
    if kind == "s3":
        s3 = seaweed.SeaweedFs(folder / "s3")
        os.environ.update(s3.environment)
        try:
            await s3.start()
            async with _opened(f"s3://{seaweed.BUCKET}/year") as opened:
                yield opened
        finally:
            await s3.kill()
        return
    gcs = fake_gcs.FakeGcs(folder / "gcs.log")
    os.environ[EMULATOR_VARIABLE] = gcs.url
    os.environ["DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA"] = "true"
    try:
        await gcs.start()
        await gcs.make_bucket()
        async with _opened(f"gs://{fake_gcs.BUCKET}/year") as opened:
            yield opened
    finally:
        await gcs.kill()


@asynccontextmanager
async def _opened(uri: str) -> AsyncIterator[tuple[ObjectStore, str]]:
    async with opened_object_store(uri) as store:
        yield store, uri
