"""Appending a shard to an image and pushing it to a registry on this machine."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from bench.image_push import BASE, TAG
from bench.shards import sealed_shard
from shashin.oci.references import Repository
from shashin.oci.registry import RegistryClient
from shashin.shards.format.manifest import MANIFEST_FILE
from shashin.shards.kinds.registry import DEFAULT_BUILT_KIND
from shashin.terminal.console import echo_stderr
from tests.support.made_images import push_base
from tests.support.oci_registry import BINARY_VARIABLE, RegistryServer

ROWS = 100_000


async def images(scratch: Path) -> dict[str, float]:
    """Append a shard of 100,000 rows of 128 dimensions to an image, and push it."""
    if BINARY_VARIABLE not in os.environ:
        echo_stderr(f"{BINARY_VARIABLE} is not set: images are not measured")
        return {}
    shard = scratch / "shard"
    manifest = await asyncio.to_thread(sealed_shard, shard, 0, DEFAULT_BUILT_KIND, ROWS)
    (shard / MANIFEST_FILE).write_bytes(manifest.to_json())
    server = RegistryServer(scratch / "registry")
    try:
        await server.start()
        async with RegistryClient(server.access()) as client:
            await push_base(client, Repository(server.address, BASE), tag=TAG)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.image_push", server.address, str(shard)),
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await process.communicate()
    finally:
        await server.close()
    if process.returncode:
        raise RuntimeError(f"python -m bench.image_push ended with {process.returncode}")
    took: dict[str, float] = json.loads(printed)
    assert took["sent"] > sum(entry.size for entry in manifest.files)
    return {
        "append 100,000 rows to an image and push it": took["seconds"],
        "memory of that push": took["memory"] / 1e6,
    }
