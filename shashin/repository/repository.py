"""The model repository: reads and writes shards and pointers in an object store."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from shashin.errors import CorruptShard, ObjectNotFound, PreconditionFailed, RepositoryError
from shashin.objectstore.protocol import ObjectStore, OnlyIf, Version
from shashin.repository.pointer import Pointer, pointer_key
from shashin.runtime.failpoints import failpoint
from shashin.runtime.logging import get_logger
from shashin.shards.format.file_entry import FileEntry, file_entry
from shashin.shards.format.manifest import MANIFEST_FILE, Manifest

log = get_logger(__name__)


@dataclass(frozen=True)
class StoredShard:
    """A shard whose manifest is in the repository."""

    manifest: Manifest
    manifest_key: str

    @property
    def folder(self) -> str:
        """The key prefix of the shard's objects."""
        return self.manifest_key.rpartition("/")[0]


class ModelRepository:
    """Shards and pointers of all models."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._manifests: dict[str, tuple[Version, StoredShard]] = {}
        self._pointers: dict[str, tuple[Version, Pointer]] = {}

    async def commit_shard(self, manifest: Manifest, folder: Path) -> bool:
        """Upload a shard's files, then its manifest; returns whether this call committed it.

        The first commit wins. Later ones must have the same content, since the log determines it:
        a difference is an error, and the existing shard stays.

        Raises:
            RepositoryError: when a shard of this range with different content exists.
        """
        prefix, key = manifest.folder, manifest.key
        if not await self._exists(key):
            for number, entry in enumerate(manifest.files):
                if number:
                    failpoint("between-files")
                await self._upload_once(prefix, folder / entry.name, entry)
            failpoint("before-manifest")
            try:
                await self._store.write(key, manifest.to_json(), only_if=OnlyIf.absent())
            except PreconditionFailed:
                log.info("another replica committed the shard first", shard=manifest.shard_id)
            else:
                failpoint("after-manifest")
                return True
        committed = (await self.read_shard(key)).manifest
        if (committed.files, committed.source_ranges) != (manifest.files, manifest.source_ranges):
            raise RepositoryError(
                f"shard {manifest.shard_id} was committed with different content: {committed.files} "
                f"in the repository, {manifest.files} on this replica; all replicas must run the "
                "same version with the same settings"
            )
        return False

    async def _upload_once(self, prefix: str, path: Path, entry: FileEntry) -> None:
        """Upload a file unless it exists with the same bytes; other replicas may upload it too."""
        key = f"{prefix}/{entry.name}"
        only_if: OnlyIf | None = OnlyIf.absent()
        while only_if is not None:
            try:
                await self._store.upload(key, path, only_if=only_if)
            except PreconditionFailed:
                only_if = await self._if_garbage(prefix, entry)
            else:
                return

    async def _if_garbage(self, prefix: str, entry: FileEntry) -> OnlyIf | None:
        """Return the precondition for overwriting an existing file; None if it must be kept."""
        key = f"{prefix}/{entry.name}"
        while True:
            try:
                found = await self._store.stat(key)
                if found.size == entry.size and await self._sha256(key) == entry.sha256:
                    return None
            except ObjectNotFound:
                return OnlyIf.absent()
            except PreconditionFailed:
                continue  # another replica overwrote it during the comparison
            if await self._exists(f"{prefix}/{MANIFEST_FILE}"):
                # Committed meanwhile, with different content: that stays.
                return None
            # No manifest: garbage of a replica that crashed.
            log.warning("overwriting a file that has no manifest", key=key)
            # The version from before the comparison, so that no newer one is overwritten.
            return OnlyIf.unchanged(found.version)

    async def _sha256(self, key: str) -> str:
        """Hash an object while streaming it: a shard's file may not fit into memory."""
        digest = hashlib.sha256()
        async with aclosing(self._store.stream(key)) as chunks:
            async for chunk in chunks:
                await asyncio.to_thread(digest.update, chunk)
        return digest.hexdigest()

    async def _exists(self, key: str) -> bool:
        try:
            await self._store.stat(key)
        except ObjectNotFound:
            return False
        return True

    async def read_shard(self, manifest_key: str) -> StoredShard:
        """Read one manifest.

        Raises:
            ObjectNotFound: when there is none.
            RepositoryError: when it cannot be read.
        """
        data, _ = await self._store.read(manifest_key)
        return StoredShard(Manifest.from_json(data, key=manifest_key), manifest_key)

    async def shards(
        self, model_id: str, tier: str
    ) -> tuple[list[StoredShard], list[RepositoryError]]:
        """Return the committed shards of a tier, and an error for each unreadable manifest.

        Manifests are cached by version.
        """
        prefix = f"indexes/{model_id}/{tier}/"
        found, errors = [], []
        for info in await self._store.list_objects(prefix):
            if not info.key.endswith(f"/{MANIFEST_FILE}"):
                continue
            known = self._manifests.get(info.key)
            if known is None or known[0] != info.version:
                try:
                    known = (info.version, await self.read_shard(info.key))
                except RepositoryError as error:
                    errors.append(error)
                    continue
                self._manifests[info.key] = known
            found.append(known[1])
        return sorted(found, key=lambda stored: stored.manifest.source_ranges), errors

    async def fetch(self, stored: StoredShard, cache: Path) -> Path:
        """Download a shard's files to ``cache/<shard id>`` and verify them; returns that folder.

        Intact files that are already cached are kept.

        Raises:
            CorruptShard: when a file is missing or truncated, or its SHA-256 does not match.
        """
        folder = cache / stored.manifest.shard_id
        for entry in stored.manifest.files:
            path = folder / entry.name
            if await asyncio.to_thread(_is_intact, path, entry):
                continue
            key = f"{stored.folder}/{entry.name}"
            try:
                await self._store.download(key, path)
            except ObjectNotFound as error:
                raise CorruptShard(
                    f"{key} is missing, though its manifest names it: restore it, or delete "
                    "the manifest so that the shard is sealed again"
                ) from error
            await self._check(path, key, entry)
        failpoint("after-fetch")
        return folder

    async def verify(self, stored: StoredShard, scratch: Path) -> None:
        """Download every file of a shard and verify it, ignoring caches.

        Raises:
            CorruptShard: as ``fetch``.
        """
        folder = scratch / stored.manifest.shard_id
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        try:
            await self.fetch(stored, scratch)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _check(self, path: Path, key: str, entry: FileEntry) -> None:
        found = await asyncio.to_thread(file_entry, path)
        if found != entry:
            await asyncio.to_thread(path.unlink)
            raise CorruptShard(
                f"{key} has {found.size} bytes with SHA-256 {found.sha256}; its manifest says "
                f"{entry.size} bytes with {entry.sha256}: restore the object, or delete the "
                "manifest so that the shard is sealed again"
            )

    async def read_pointer(self, model_id: str, tier: str) -> tuple[Pointer | None, Version | None]:
        """Return a tier's pointer and its version; ``(None, None)`` if there is none yet.

        Cheap to poll: the pointer is read only if its version has changed.
        """
        key = pointer_key(model_id, tier)
        try:
            known = self._pointers.get(key)
            if known is None or known[0] != (await self._store.stat(key)).version:
                data, version = await self._store.read(key)
                known = self._pointers[key] = (version, Pointer.from_json(data, key=key))
        except ObjectNotFound:
            return None, None
        return known[1], known[0]

    async def move_pointer(self, pointer: Pointer, *, over: Version | None) -> Version:
        """Replace version ``over`` of a tier's pointer, None if absent; returns the new version.

        Raises:
            PreconditionFailed: when the pointer was moved meanwhile: read it and decide again.
        """
        return await self._store.write(
            pointer_key(pointer.model_id, pointer.tier),
            pointer.to_json(),
            only_if=OnlyIf.absent() if over is None else OnlyIf.unchanged(over),
        )


def _is_intact(path: Path, entry: FileEntry) -> bool:
    return path.is_file() and file_entry(path) == entry
