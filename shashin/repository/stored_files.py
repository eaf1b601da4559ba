"""Files as objects: whether the store has one as it should be."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import aclosing

from shashin.errors import ObjectNotFound, PreconditionFailed
from shashin.objectstore.protocol import ObjectStore, OnlyIf
from shashin.runtime.logging import get_logger
from shashin.shards.format.file_entry import FileEntry

log = get_logger(__name__)


async def sha256_of(store: ObjectStore, key: str) -> str:
    """Hash an object while streaming it: a shard's file may not fit into memory.

    Raises:
        ObjectNotFound: when there is none.
        PreconditionFailed: when it was overwritten or deleted meanwhile.
    """
    digest = hashlib.sha256()
    async with aclosing(store.stream(key)) as chunks:
        async for chunk in chunks:
            await asyncio.to_thread(digest.update, chunk)
    return digest.hexdigest()


async def condition_to_write(store: ObjectStore, key: str, entry: FileEntry) -> OnlyIf | None:
    """Return the precondition for writing a file; None if the object has its bytes already."""
    while True:
        try:
            found = await store.stat(key)
            if found.size == entry.size and await sha256_of(store, key) == entry.sha256:
                return None
        except ObjectNotFound:
            return OnlyIf.absent()
        except PreconditionFailed:
            continue  # another process overwrote it during the comparison
        # It does not have the content that its name says, so no manifest can vouch for it.
        log.warning("overwriting a damaged file", key=key)
        # The version from before the comparison, so that no newer one is overwritten.
        return OnlyIf.unchanged(found.version)
