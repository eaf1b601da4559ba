"""The benchmarks of object stores, which need no running system."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bench.transfer import FILE_BYTES
from shashin.objectstore.gcs import EMULATOR_VARIABLE
from shashin.terminal.console import echo_stderr
from tests.support import fake_gcs, seaweed
from tests.support.fake_gcs import FakeGcs
from tests.support.seaweed import SeaweedFs


async def folder(scratch: Path) -> dict[str, float]:
    """Return the speed of a folder, as a share of that of ``cp`` on the same disk.

    An upload returns only once the file is on the disk, which ``cp`` alone does not wait for.
    """
    took = await _transfer((scratch / "store").as_uri(), scratch)
    return {
        "upload to a folder": took["cp"] / took["upload"],
        "upload to a folder, on the disk": took["cp_sync"] / took["upload"],
        "download from a folder": took["cp"] / took["download"],
        "memory, 500 MB to a folder and back": took["memory"] / 1e6,
    }


async def s3(scratch: Path) -> dict[str, float]:
    """Return the speed of S3, with a server on this machine."""
    server = SeaweedFs(scratch / "server")
    try:
        await server.start()
        took = await _transfer(f"s3://{seaweed.BUCKET}/bench", scratch, server.environment)
    finally:
        await server.kill()
    return _figures("S3", took)


async def gcs(scratch: Path) -> dict[str, float]:
    """Return the speed of Google Cloud Storage, with an emulator on this machine, if there is one."""
    if fake_gcs.SERVER_VARIABLE not in os.environ:
        echo_stderr(f"{fake_gcs.SERVER_VARIABLE} is not set: gs:// is not measured")
        return {}
    server = FakeGcs(scratch / "log")
    try:
        await server.start()
        await server.make_bucket()
        uri = f"gs://{fake_gcs.BUCKET}/bench"
        took = await _transfer(uri, scratch, {EMULATOR_VARIABLE: server.url})
    finally:
        await server.kill()
    return _figures("GCS", took)


def _figures(kind: str, took: Mapping[str, float]) -> dict[str, float]:
    return {
        f"upload to {kind}, local server": FILE_BYTES / took["upload"] / 1e6,
        f"download from {kind}, local server": FILE_BYTES / took["download"] / 1e6,
        f"memory, 500 MB to {kind} and back": took["memory"] / 1e6,
    }


async def _transfer(
    uri: str, scratch: Path, environment: Mapping[str, str] | None = None
) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=scratch) as files:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.transfer", uri, files),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **(environment or {})},
        )
        printed, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"python -m bench.transfer ended with {process.returncode}")
    took: dict[str, float] = json.loads(printed)
    return took
