"""The model repository: reads and writes shards and pointers in an object store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from shashin.errors import (
    CorruptShard,
    DiskUnavailable,
    ObjectNotFound,
    PreconditionFailed,
    ShashinError,
)
from shashin.objectstore.protocol import ObjectInfo, ObjectStore, OnlyIf, Version
from shashin.offsets.ranges import OffsetRange
from shashin.repository.announcements import (
    ABANDONED_AFTER_SECONDS,
    Announcement,
    announced_prefix,
)
from shashin.repository.pointer import Pointer, history_prefix, pointer_key
from shashin.repository.rejections import Rejection, rejected_prefix
from shashin.repository.stored_files import condition_to_write
from shashin.runtime.failpoints import failpoint
from shashin.runtime.logging import get_logger
from shashin.shards.format.file_entry import FileEntry, file_entry
from shashin.shards.format.manifest import MANIFEST_FILE, Manifest, range_in_key
from shashin.tiers import SEALED_TIERS

log = get_logger(__name__)


@dataclass(frozen=True)
class StoredShard:
    """A shard whose manifest is in the repository."""

    manifest: Manifest
    manifest_key: str


@dataclass(frozen=True)
class UnreadableShard:
    """A shard whose manifest is in the repository and cannot be read: it is not absent."""

    manifest_key: str
    error: ShashinError
    ranges: tuple[OffsetRange, ...]
    """From the manifest's last readable version, or from its key; empty if neither has them."""

    @property
    def shard_id(self) -> str:
        """The shard's id, from the key."""
        return self.manifest_key.removesuffix(f"/{MANIFEST_FILE}").rpartition("/")[2]


@dataclass(frozen=True)
class AnnouncedShard:
    """A shard that was announced, with what is known of it."""

    key: str
    """Of the announcement."""
    version: Version | None
    """Of the announcement; None if it cannot be read."""
    shard: StoredShard | UnreadableShard | None
    """None while its manifest is missing: it is being uploaded."""
    announcement: Announcement | None
    """None if it cannot be read."""

    @property
    def abandoned(self) -> bool:
        """Whether its manifest will never be written."""
        return (
            self.shard is None
            and self.announcement is not None
            and time.time() - self.announcement.at > ABANDONED_AFTER_SECONDS
        )


@dataclass(frozen=True)
class Commit:
    """What is in the repository after a commit: the first one wins."""

    first: bool
    """Whether this call committed the shard."""
    manifest: Manifest
    """The committed manifest, of this call or of the first one."""
    overlapping: tuple[str, ...]
    """Ids of shards of the same bucket that were cut elsewhere and contain some of its offsets."""


class ModelRepository:
    """Shards and pointers of all models."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._manifests: dict[str, tuple[Version, StoredShard]] = {}
        self._pointers: dict[str, tuple[Version, Pointer]] = {}

    async def commit_shard(self, manifest: Manifest, folder: Path) -> Commit:
        """Announce a shard, upload its files from ``folder``, then its manifest, if there is none.

        Raises:
            DiskUnavailable: when a file is no longer as the manifest says: write the shard again.
            RepositoryError: when the range is committed with a manifest that cannot be read.
        """
        key = manifest.key
        committed = await self._manifests_in_bucket(manifest)
        overlapping = _overlapping(manifest, committed)
        if key not in committed:
            await self.announce(key)
            failpoint("after-announcement")
            for number, entry in enumerate(manifest.files):
                if number:
                    failpoint("between-files")
                await self._upload_once(manifest.object_key(entry), folder / entry.name, entry)
            failpoint("before-manifest")
            try:
                await self._store.write(key, manifest.to_json(), only_if=OnlyIf.absent())
            except PreconditionFailed:
                log.info("another replica committed the shard first", shard=manifest.shard_id)
            else:
                failpoint("after-manifest")
                return Commit(True, manifest, overlapping)
        return Commit(False, (await self.read_shard(key)).manifest, overlapping)

    async def _manifests_in_bucket(self, manifest: Manifest) -> list[str]:
        bucket = manifest.folder.rpartition("/")[0]
        return [info.key for info in await self._manifests_below(f"{bucket}/")]

    async def _upload_once(self, key: str, path: Path, entry: FileEntry) -> None:
        """Upload a file unless it exists with the same bytes; other replicas may upload it too."""
        only_if: OnlyIf | None = OnlyIf.absent()
        while only_if is not None:
            try:
                await self._store.upload(key, path, only_if=only_if)
            except PreconditionFailed:
                only_if = await condition_to_write(self._store, key, entry)
            else:
                # Checked afterwards, so that no change before or during the upload is missed.
                await asyncio.to_thread(_check_as_written, path, entry)
                return

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
    ) -> tuple[list[StoredShard], list[UnreadableShard]]:
        """Return all shards of a tier ever committed, and those whose manifest cannot be read.

        Takes time in proportion to their number: what only needs what is served or new reads
        pointers and ``announced``. Manifests are cached by version.
        """
        found: list[StoredShard] = []
        unreadable: list[UnreadableShard] = []
        for info in await self._manifests_below(f"indexes/{model_id}/{tier}/"):
            shard = await self._shard(info)
            if isinstance(shard, UnreadableShard):
                unreadable.append(shard)
            elif shard is not None:
                found.append(shard)
        return sorted(found, key=lambda stored: stored.manifest.source_ranges), unreadable

    async def keep_in_history(self, pointer: Pointer) -> None:
        """Keep a copy of a pointer that a tier serves from now on."""
        at = time.time_ns() // 1_000_000
        prefix = history_prefix(pointer.model_id, pointer.tier)
        await self._store.write(f"{prefix}{at:015d}.json", pointer.to_json())

    async def history(self, model_id: str, tier: str) -> list[tuple[float, Pointer]]:
        """Return the pointers that a tier had, oldest first, with the time in Unix seconds.

        Raises:
            RepositoryError: when one of them cannot be read.
        """
        prefix = history_prefix(model_id, tier)
        found = []
        for info in await self._store.list_objects(prefix):
            data, _ = await self._store.read(info.key)
            pointer = Pointer.from_json(data, key=pointer_key(model_id, tier))
            found.append((int(info.key.removeprefix(prefix).removesuffix(".json")) / 1000, pointer))
        return found

    async def manifest_keys(self, model_id: str, tier: str) -> list[str]:
        """Return the keys of all manifests of a tier, sorted: in proportion to its history."""
        return [info.key for info in await self._manifests_below(f"indexes/{model_id}/{tier}/")]

    async def manifest_keys_by_id(self, model_id: str) -> dict[str, str]:
        """Return the keys of all manifests of a model, by shard id: in proportion to its history."""
        keys = [key for tier in SEALED_TIERS for key in await self.manifest_keys(model_id, tier)]
        return {key.split("/")[-2]: key for key in keys}

    async def _manifests_below(self, prefix: str) -> list[ObjectInfo]:
        listed = await self._store.list_objects(prefix)
        return [info for info in listed if info.key.endswith(f"/{MANIFEST_FILE}")]

    async def announced(self, model_id: str) -> list[AnnouncedShard]:
        """Return a model's announced shards: what was committed since the last plan.

        An announcement that cannot be read, or that was made for a shard whose manifest is still
        missing long after, is as unreadable as a manifest.
        """
        infos = await self._store.list_objects(announced_prefix(model_id))
        found = await asyncio.gather(*(self._announced(info.key) for info in infos))
        return [shard for shard in found if shard is not None]

    async def _announced(self, key: str) -> AnnouncedShard | None:
        try:
            data, version = await self._store.read(key)
            announcement = Announcement.from_json(data, key=key)
        except ObjectNotFound:
            return None  # settled since it was listed
        except ShashinError as error:
            if error.retryable:
                raise
            return AnnouncedShard(key, None, UnreadableShard(key, error, ()), None)
        shard = await self.shard_at(announcement.manifest_key)
        return AnnouncedShard(key, version, shard, announcement)

    async def settle(self, announced: AnnouncedShard) -> None:
        """Delete an announcement, unless the shard was announced again meanwhile."""
        if announced.version is not None:
            with suppress(PreconditionFailed):
                await self._store.delete(announced.key, only_if=OnlyIf.unchanged(announced.version))

    async def announce(self, manifest_key: str) -> None:
        """Announce a committed shard, so that it is planned."""
        announcement = Announcement(manifest_key, time.time())
        await self._store.write(announcement.key, announcement.to_json())

    async def reject(self, manifest: Manifest) -> None:
        """Ask for the parents of a built shard in its place; they are announced.

        Raises:
            ObjectNotFound: when a parent is not in the repository any more: nothing is changed.
        """
        keys = await self.manifest_keys_by_id(manifest.model_id)
        if missing := [shard_id for shard_id in manifest.parents if shard_id not in keys]:
            raise ObjectNotFound(
                f"the repository has no shard {', '.join(missing)} any more: it was pruned"
            )
        for shard_id in manifest.parents:
            await self.announce(keys[shard_id])
        rejection = Rejection(manifest.key)
        await self._store.write(rejection.key, rejection.to_json())

    async def rejected(self, model_id: str) -> dict[str, Rejection]:
        """Return the rejected shards of a model, by id.

        Raises:
            RepositoryError: when a rejection cannot be read.
        """
        found = {}
        for info in await self._store.list_objects(rejected_prefix(model_id)):
            try:
                data, _ = await self._store.read(info.key)
            except ObjectNotFound:
                continue  # deleted since it was listed
            rejection = Rejection.from_json(data, key=info.key)
            found[rejection.shard_id] = rejection
        return found

    async def delete_rejected(self, rejection: Rejection) -> None:
        """Delete the manifest of a rejected shard that is out of service, then its rejection."""
        await self._store.delete(rejection.manifest_key)
        self._manifests.pop(rejection.manifest_key, None)
        await self._store.delete(rejection.key)

    async def shard_at(self, manifest_key: str) -> StoredShard | UnreadableShard | None:
        """Return the shard with this manifest; None if there is no such manifest.

        Cheap to repeat: the manifest is read only if its version has changed.
        """
        try:
            info = await self._store.stat(manifest_key)
        except ObjectNotFound:
            self._manifests.pop(manifest_key, None)
            return None
        return await self._shard(info)

    async def _shard(self, info: ObjectInfo) -> StoredShard | UnreadableShard | None:
        known = self._manifests.get(info.key)
        if known is None or known[0] != info.version:
            try:
                stored = await self.read_shard(info.key)
            except ObjectNotFound:
                return None  # deleted since it was listed
            except ShashinError as error:
                if error.retryable:
                    raise
                ranges = known[1].manifest.source_ranges if known else _ranges_in(info.key)
                return UnreadableShard(info.key, error, ranges)
            known = self._manifests[info.key] = (info.version, stored)
        return known[1]

    async def fetch(
        self, stored: StoredShard, cache: Path, *, names: Collection[str] | None = None
    ) -> Path:
        """Download a shard's files to ``cache/<shard id>`` and verify them; returns that folder.

        Intact files that are already cached are kept. With ``names``, only these files.

        Raises:
            CorruptShard: when a file is missing or truncated, or its SHA-256 does not match.
        """
        folder = cache / stored.manifest.shard_id
        for entry in stored.manifest.files:
            path = folder / entry.name
            if names is not None and entry.name not in names:
                continue
            if await asyncio.to_thread(_is_intact, path, entry):
                continue
            key = stored.manifest.object_key(entry)
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


def _check_as_written(path: Path, entry: FileEntry) -> None:
    try:
        intact = _is_intact(path, entry)
    except OSError as error:
        raise DiskUnavailable(f"{path} cannot be read: {error.strerror or error}") from error
    if not intact:
        raise DiskUnavailable(
            f"{path} is no longer as it was written: the shard is written again; nothing else may "
            "change or delete files there"
        )


def _ranges_in(manifest_key: str) -> tuple[OffsetRange, ...]:
    named = range_in_key(manifest_key)
    return () if named is None else (named,)


def _overlapping(manifest: Manifest, committed: list[str]) -> tuple[str, ...]:
    return tuple(
        key.split("/")[-2]
        for key in committed
        if key != manifest.key
        and any(other.overlaps(own) for other in _ranges_in(key) for own in manifest.source_ranges)
    )
