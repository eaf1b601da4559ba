"""Prints how fast a shard is appended to an image and pushed, and the memory that it takes.

Run as ``python -m bench.image_push REGISTRY FOLDER``, in a process of its own. FOLDER is where
``bench.images`` left the shard, and REGISTRY, HOST:PORT without TLS, has the base image.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from bench.transfer import peak, reset_peak
from shashin.index_images.publish import publish_image
from shashin.index_images.shard_layer import in_folder
from shashin.oci.access import RegistryAccess
from shashin.oci.references import Reference, Repository
from shashin.oci.registry import RegistryClient
from shashin.shards.format.manifest import MANIFEST_FILE, Manifest
from shashin.shards.format.shard_id import shard_folder

BASE = "base"
TAG = "latest"


async def push(registry: str, folder: Path) -> dict[str, float]:
    """Return ``seconds``, ``sent`` (bytes) and ``memory``.

    Memory is the peak above what the process takes with an open client, in bytes, on Linux.
    """
    document = (folder / MANIFEST_FILE).read_bytes()
    described = json.loads(document)
    key = shard_folder(
        *(described[name] for name in ("model_id", "tier", "bucket_start", "shard_id"))
    )
    manifest = Manifest.from_json(document, key=f"{key}/{MANIFEST_FILE}")
    async with RegistryClient(RegistryAccess(plain_http=frozenset({registry}))) as client:
        base = Reference(Repository(registry, BASE), TAG)
        await client.manifest(base)
        idle = reset_peak()
        started = time.perf_counter()
        published = await publish_image(
            client, base, [in_folder(manifest, folder)], Repository(registry, "shards"), "bench"
        )
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "sent": published.sent_bytes, "memory": peak() - idle}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(push(sys.argv[1], Path(sys.argv[2])))))
