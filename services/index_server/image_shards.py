"""Serves what is in the image: a folder with a folder for each shard, mapped in place and never written.

No pointer is followed. Which shards a process serves is decided when its image is made, so it is ready
only once it serves all of them.
"""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from services.index_server.swap import ShardSwapper
from shashin.errors import CorruptShard, SettingsError
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope
from shashin.serving.catch_up import Joining
from shashin.shards.format.file_entry import file_entry
from shashin.shards.format.manifest import MANIFEST_FILE, Manifest

log = get_logger(__name__)


class ImageShards:
    """Loads every shard of a folder, and retries those that cannot be served with backoff.

    Raises:
        SettingsError: when the folder cannot be read or has no shard.
    """

    def __init__(self, folder: Path, swapper: ShardSwapper) -> None:
        self._folders = _shard_folders(folder)
        self._swapper = swapper

    def loop(self) -> Loop:
        """Return the loop; ready once every shard is served."""
        return Loop("shards of the image", self.run, ready_when="all shards of the image")

    async def run(self, loop: LoopScope) -> None:
        """Serve all shards, until stopped."""
        wanted = {folder.name: partial(self._load, folder) for folder in self._folders}
        while loop.next_turn():
            if not await self._swapper.swap_to(wanted, loop):
                return
            bad = self._swapper.bad
            if not bad:
                loop.ready()
                await loop.until_stopped()
                return
            first = min(bad)
            loop.not_ready(
                f"{len(bad)} of {len(wanted)} shards of the image cannot be served, the first is "
                f"{first}: {bad[first]}"
            )
            await loop.sleep(self._swapper.seconds_until_retry)

    async def _load(self, folder: Path) -> Joining:
        manifest = await asyncio.to_thread(_read_manifest, folder)
        self._swapper.check(manifest)
        await asyncio.to_thread(_check_files, folder, manifest)
        return await self._swapper.opened(manifest, folder)


def _shard_folders(folder: Path) -> list[Path]:
    variable = f"SHASHIN_SHARDS_FOLDER={str(folder)!r}"
    expected = "expected a folder for each shard, as in an image that the image builder published"
    try:
        found = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError as error:
        raise SettingsError(
            f"{variable}: it cannot be read: {error.strerror or error}; {expected}"
        ) from error
    if not found:
        raise SettingsError(f"{variable}: it has no shard; {expected}")
    return found


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST_FILE
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _damaged(path, f"cannot be read: {error.strerror or error}") from error
    return Manifest.from_copy(data, path=str(path), shard_id=folder.name)


def _check_files(folder: Path, manifest: Manifest) -> None:
    """Compare every file with its hash: a node's disk keeps a layer for months."""
    for entry in manifest.files:
        path = folder / entry.name
        try:
            found = file_entry(path)
        except OSError as error:
            raise _damaged(path, f"cannot be read: {error.strerror or error}") from error
        if found != entry:
            raise _damaged(
                path,
                f"has {found.size} bytes with SHA-256 {found.sha256} instead of {entry.size} bytes "
                f"with {entry.sha256}",
            )


def _damaged(path: Path, how: str) -> CorruptShard:
    return CorruptShard(
        f"{path} {how}: delete the image from this node, so that it is pulled again"
    )
