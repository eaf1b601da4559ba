"""The model repository: shards and pointers in an object store, written and read in one way."""

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
from shashin.shards.format.shard_id import shard_folder

log = get_logger(__name__)


@dataclass(frozen=True)
class StoredShard:
    """A shard whose manifest lies in the repository."""

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

        The first upload wins. Whoever comes later finds the same content, since the log decides
        it: a difference is an error, and the shard that is there stays.

        Raises:
            RepositoryError: when a shard of this range with other content is there already.
        """
        prefix = shard_folder(
            manifest.model_id, manifest.tier, manifest.bucket_start, manifest.shard_id
        )
        key = f"{prefix}/{MANIFEST_FILE}"
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
        there = (await self.read_shard(key)).manifest
        if (there.files, there.source_ranges) != (manifest.files, manifest.source_ranges):
            raise RepositoryError(
                f"shard {manifest.shard_id} was committed with other content than this replica "
                f"has: {there.files} there, {manifest.files} here; both have to run the same "
                "version with the same settings"
            )
        return False

    async def _upload_once(self, prefix: str, path: Path, entry: FileEntry) -> None:
        """Upload a file unless the same bytes lie there: another replica may be at it as well."""
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
        """Return the condition to write a file over what lies there; None when that stays."""
        key = f"{prefix}/{entry.name}"
        while True:
            try:
                found = await self._store.stat(key)
                if found.size == entry.size and await self._sha256(key) == entry.sha256:
                    return None
            except ObjectNotFound:
                return OnlyIf.absent()
            except PreconditionFailed:
                continue  # another replica wrote over it while it was compared
            if await self._exists(f"{prefix}/{MANIFEST_FILE}"):
                # Committed meanwhile, with other content: that stays, whoever is right.
                return None
            # No manifest vouches for what lies there: garbage of a replica that died.
            log.warning("writing over a file that no manifest vouches for", key=key)
            # The version from before the comparison: what came since is not written over.
            return OnlyIf.unchanged(found.version)

    async def _sha256(self, key: str) -> str:
        """Hash an object as it streams by: a shard's file need not fit into memory."""
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
        """Return the committed shards of a tier, and an error for each manifest that is unreadable.

        Manifests never change, so each is read once.
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
        """Bring a shard's files to ``cache/<shard id>`` and check them; returns that folder.

        Files that are there already and whole are kept.

        Raises:
            CorruptShard: when a file is missing, cut short, or its SHA-256 is another.
        """
        folder = cache / stored.manifest.shard_id
        for entry in stored.manifest.files:
            path = folder / entry.name
            if await asyncio.to_thread(_is_whole, path, entry):
                continue
            key = f"{stored.folder}/{entry.name}"
            try:
                await self._store.download(key, path)
            except ObjectNotFound as error:
                raise CorruptShard(
                    f"{key} is missing, though its manifest names it: restore it, or remove "
                    "the manifest so that the shard is sealed anew"
                ) from error
            await self._check(path, key, entry)
        failpoint("after-fetch")
        return folder

    async def verify(self, stored: StoredShard, scratch: Path) -> None:
        """Read every file of a shard anew and check it, whatever any cache holds.

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
                f"{entry.size} bytes with {entry.sha256}: restore the object, or remove the "
                "manifest so that the shard is sealed anew"
            )

    async def read_pointer(self, model_id: str, tier: str) -> tuple[Pointer | None, Version | None]:
        """Return a tier's pointer and its version; ``(None, None)`` when there is none yet.

        Cheap to poll: the pointer is read only when its version is not the one that was read last.
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
        """Write a tier's pointer over the version that was read, None for none; returns the new one.

        Raises:
            PreconditionFailed: when somebody else moved it meanwhile: read it again and decide.
        """
        return await self._store.write(
            pointer_key(pointer.model_id, pointer.tier),
            pointer.to_json(),
            only_if=OnlyIf.absent() if over is None else OnlyIf.unchanged(over),
        )


def _is_whole(path: Path, entry: FileEntry) -> bool:
    return path.is_file() and file_entry(path) == entry
