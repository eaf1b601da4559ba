"""Copies a model between object stores of any kind: a backup, or its restore.

Files first, each verified by its hash in both stores, then their manifest, and pointers and horizons
last, and only if everything before could be verified. So what serves from the target never sees half
of a shard, and a copy that was interrupted is continued by another one: what is there with the right
hash is not copied again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from shashin.errors import (
    CorruptShard,
    DifferentContent,
    ObjectNotFound,
    PreconditionFailed,
    RepositoryError,
    UserError,
)
from shashin.objectstore.protocol import ObjectStore, OnlyIf, Version
from shashin.repository.documents import partition_of
from shashin.repository.given_up import GivenUp
from shashin.repository.horizons import Horizon
from shashin.repository.known_shards import known_models, read_known_shards
from shashin.repository.pointer import Pointer, history_prefix, pointer_key
from shashin.repository.published_models import published_key
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.repository.stored_files import condition_to_write, sha256_of
from shashin.shards.format.file_entry import FileEntry, file_entry
from shashin.shards.format.hidden_header import is_snapshot_name
from shashin.shards.format.manifest import Manifest
from shashin.tiers import SEALED_TIERS

_MODELS = "models/"
_SERVING = "serving/"


@dataclass
class Copied:
    """What a copy did."""

    shards: int = 0
    """Complete in the target."""
    files: int = 0
    """Copied; the others were there."""
    copied_bytes: int = 0
    verified_bytes: int = 0
    """Of files, copied or not."""
    total_bytes: int = 0
    """Of the files of all shards."""
    pointers: list[str] = field(default_factory=list)
    """Keys of the pointers that the target has now."""
    problems: list[str] = field(default_factory=list)
    """What could not be verified; with any, pointers and horizons are not written."""


async def only_model(store: ObjectStore) -> str:
    """Return the id of the only model that the store has.

    Raises:
        UserError: when there is none, or more than one.
    """
    models = await known_models(store)
    if not models:
        raise UserError("the source has no model: is it the repository of a running system?")
    if len(models) > 1:
        raise UserError(
            f"the source has {len(models)} models ({', '.join(models)}): name one with --model"
        )
    return models[0]


class ModelCopy:
    """One copy of a model from a store to another."""

    def __init__(
        self,
        source: ObjectStore,
        target: ObjectStore,
        model_id: str,
        scratch: Path,
        *,
        replace: bool,
        progress: Callable[[Copied], None] = lambda _: None,
    ) -> None:
        """Prepare a copy.

        Args:
            source: Where the model is.
            target: Where it is copied to.
            model_id: The model.
            scratch: A folder for one file at a time.
            replace: Whether manifests, pointers and horizons of the target that differ are
                overwritten; otherwise each is a problem.
            progress: Called with what is done so far, after each file.
        """
        self._source = source
        self._target = target
        self._model_id = model_id
        self._scratch = scratch
        self._replace = replace
        self._progress = progress
        self._copied = Copied()

    async def run(self, *, everything: bool = False) -> Copied:
        """Copy every shard that a pointer names or that is new.

        With ``everything``: all shards, and the history of pointers, which may name any of them.

        Raises:
            ObjectStoreError: when a store does not respond or refuses: run it again.
        """
        # Before anything else, so that pointers and horizons fit to the shards.
        serving = await self._serving(everything=everything)
        pointers = list(self._pointers(serving))
        await self._check_published()
        if self._copied.problems:
            return self._copied
        manifests = await self._manifests(pointers, everything=everything)
        self._copied.total_bytes = sum(
            entry.size for manifest, _ in manifests for entry in manifest.files
        )
        for manifest, data in manifests:
            with self._naming(manifest.shard_id):
                await self._copy_shard(manifest, data)
                self._copied.shards += 1
        for info in await self._source.list_objects(f"{_MODELS}{self._model_id}/"):
            with self._naming(info.key):
                await self._copy_object(info.key, info.size)
        if not self._copied.problems:
            await self._serve(serving, pointers)
        return self._copied

    async def _serving(self, *, everything: bool) -> dict[str, bytes]:
        """Return the documents that say what is served, by key: pointers last."""
        documents: dict[str, bytes] = {}
        histories = tuple(history_prefix(self._model_id, tier) for tier in SEALED_TIERS)
        for info in await self._source.list_objects(f"{_SERVING}{self._model_id}/"):
            if info.key.startswith(histories) and not everything:
                continue
            try:
                documents[info.key], _ = await self._source.read(info.key)
            except ObjectNotFound:
                continue  # deleted since it was listed
            with self._naming(info.key):
                self._check_document(info.key, documents[info.key])
                if not self._replace:
                    await self._require_same(info.key, documents[info.key])
        if not documents:
            raise UserError(f"the source has no pointer and no horizon of model {self._model_id!r}")
        pointers = self._pointer_keys
        return dict(sorted(documents.items(), key=lambda item: (item[0] in pointers, item[0])))

    async def _check_published(self) -> None:
        """Require that the target has no other model of this id, before anything of it is copied."""
        key = published_key(self._model_id)
        if self._replace or not await self._has(key):
            return
        with self._naming(key), suppress(ObjectNotFound):  # the source's was never published
            data, _ = await self._source.read(key)
            await self._require_same(key, data)

    @property
    def _pointer_keys(self) -> set[str]:
        return {pointer_key(self._model_id, tier) for tier in SEALED_TIERS}

    def _check_document(self, key: str, data: bytes) -> None:
        if key in self._pointer_keys:
            Pointer.from_json(data, key=key)
        elif "/horizon/" in key:
            Horizon(self._model_id, partition_of(key), 0).stored(data)
        elif "/given-up/" in key:
            GivenUp(self._model_id, partition_of(key), 0).stored(data)

    def _pointers(self, serving: dict[str, bytes]) -> Iterator[Pointer]:
        for key in sorted(self._pointer_keys & serving.keys()):
            with suppress(RepositoryError):  # named already
                yield Pointer.from_json(serving[key], key=key)

    async def _manifests(
        self, pointers: list[Pointer], *, everything: bool
    ) -> list[tuple[Manifest, bytes]]:
        repository = ModelRepository(self._source)
        keys = {shard.manifest_key for pointer in pointers for shard in pointer.shards}
        known = await read_known_shards(repository, self._model_id)
        keys |= {stored.manifest_key for stored in known.stored}
        keys |= {shard.manifest_key for shard in known.unreadable}
        if everything:
            for tier in SEALED_TIERS:
                keys.update(await repository.manifest_keys(self._model_id, tier))
        manifests = []
        for key in sorted(keys):
            with self._naming(key):
                data, _ = await self._source.read(key)
                manifests.append((Manifest.from_json(data, key=key), data))
        return manifests

    async def _copy_shard(self, manifest: Manifest, data: bytes) -> None:
        if not self._replace:
            await self._require_same(manifest.key, data)
        # As a commit does: a folder without manifest and announcement is garbage.
        if not await self._has(manifest.key):
            await ModelRepository(self._target).announce(manifest.key)
        for entry in manifest.files:
            await self._copy_file(manifest.object_key(entry), entry)
            self._copied.verified_bytes += entry.size
            self._progress(self._copied)
        for info in await self._source.list_objects(f"{manifest.folder}/"):
            if is_snapshot_name(info.key.rpartition("/")[2]):
                await self._copy_object(info.key, info.size)
        await self._write(manifest.key, data)

    async def _copy_object(self, key: str, size: int) -> None:
        """Copy an object whose hash nothing else says."""
        entry = FileEntry(key.rpartition("/")[2], size, await sha256_of(self._source, key))
        await self._copy_file(key, entry)

    async def _copy_file(self, key: str, entry: FileEntry) -> None:
        """Copy a file unless the target has it, and verify it in both stores.

        Raises:
            CorruptShard: when either store has other bytes than ``entry`` says.
            ObjectNotFound: when the source does not have it.
        """
        only_if = await condition_to_write(self._target, key, entry)
        if only_if is None:
            return
        path = self._scratch / entry.name
        try:
            await self._source.download(key, path)
            found = await asyncio.to_thread(file_entry, path)
            if found != entry:
                raise CorruptShard(
                    f"the source has {found.size} bytes with SHA-256 {found.sha256} as {key}, "
                    f"expected {entry.size} bytes with {entry.sha256}"
                )
            with suppress(PreconditionFailed):  # another copy wrote it: that one is verified
                await self._target.upload(key, path, only_if=only_if)
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)
        if await condition_to_write(self._target, key, entry) is not None:
            raise CorruptShard(f"the target has other bytes than were written as {key}")
        self._copied.files += 1
        self._copied.copied_bytes += entry.size

    async def _write(self, key: str, data: bytes) -> None:
        """Write a document to the target, and read it again."""
        while (there := await self._read_target(key))[0] != data:
            with suppress(PreconditionFailed):  # written meanwhile: compared again
                await self._target.write(key, data, only_if=OnlyIf(there[1]))

    async def _require_same(self, key: str, data: bytes) -> None:
        there, _ = await self._read_target(key)
        if there not in {None, data}:
            raise DifferentContent(f"the target has another {key}: replace it, or keep that one")

    async def _read_target(self, key: str) -> tuple[bytes | None, Version | None]:
        try:
            return await self._target.read(key)
        except ObjectNotFound:
            return None, None

    async def _has(self, key: str) -> bool:
        try:
            await self._target.stat(key)
        except ObjectNotFound:
            return False
        return True

    async def _serve(self, serving: dict[str, bytes], pointers: list[Pointer]) -> None:
        """Write horizons and pointers, then settle the announcements of the shards that they name."""
        for key, data in serving.items():
            await self._write(key, data)
        self._copied.pointers = sorted(self._pointer_keys & serving.keys())
        named = {shard.manifest_key for pointer in pointers for shard in pointer.shards}
        repository = ModelRepository(self._target)
        for announced in await repository.announced(self._model_id):
            if isinstance(announced.shard, StoredShard) and announced.shard.manifest_key in named:
                await repository.settle(announced)

    @contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        """Turn an error of one thing into a problem with its name; the others are copied."""
        try:
            yield
        except (RepositoryError, ObjectNotFound) as error:
            self._copied.problems.append(f"{name}: {error.message}")
