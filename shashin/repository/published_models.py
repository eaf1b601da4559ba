"""Models in the model repository: what embedders load, beside the indexes of their vectors.

``models/<model>/checkpoint.pt`` is the checkpoint, and ``models/<model>/model.json`` its manifest with size
and SHA-256: the commit, written last. Neither is ever overwritten with other content, since the vectors of one
model id must all come from the same weights. A new model is a new id.

``model.json`` comes after all files of its model by key, the order in which a copy copies them.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter

from shashin.errors import (
    CorruptModel,
    CorruptShard,
    DifferentContent,
    DiskUnavailable,
    ModelNotPublished,
    ObjectNotFound,
    PreconditionFailed,
)
from shashin.model_space import check_model_id
from shashin.objectstore.protocol import ObjectStore, OnlyIf
from shashin.repository.documents import read_document
from shashin.repository.stored_files import condition_to_write
from shashin.shards.format.file_entry import FileEntry, file_entry

FORMAT = "shashin.model/1"
CHECKPOINT = "checkpoint.pt"


def checkpoint_key(model_id: str) -> str:
    """Return the key of a model's checkpoint."""
    return f"models/{model_id}/{CHECKPOINT}"


def published_key(model_id: str) -> str:
    """Return the key of a model's manifest."""
    return f"models/{model_id}/model.json"


@dataclass(frozen=True)
class PublishedModel:
    """The manifest of a model."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    model_id: str
    dimensions: Annotated[int, Field(ge=1, le=8192)]
    """Length of its vectors."""
    file: FileEntry
    """The checkpoint."""

    def to_json(self) -> bytes:
        """Return it as it is stored."""
        return (json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, model_id: str) -> PublishedModel:
        """Read the stored manifest of a model.

        Raises:
            UnknownFormat: when this reader does not support its format version.
            CorruptModel: when it is not a valid manifest, or one of another model.
        """
        key = published_key(model_id)
        try:
            found = read_document(
                data, _PUBLISHED, known=[FORMAT], key=key, what="manifest of a model"
            )
        except CorruptShard as error:
            raise CorruptModel(error.message) from error
        if (found.model_id, found.file.name) != (model_id, CHECKPOINT):
            raise CorruptModel(
                f"{key} is that of model {found.model_id!r} with the file {found.file.name!r}; expected "
                f"{model_id!r} with {CHECKPOINT!r}"
            )
        return found


_PUBLISHED = TypeAdapter(PublishedModel)


class PublishedModels:
    """Publishes and fetches the models of a repository."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def read(self, model_id: str) -> PublishedModel:
        """Return the manifest of a model.

        Raises:
            UserError: when it cannot be an id.
            ModelNotPublished: when there is none.
            RepositoryError: when it cannot be read: ``UnknownFormat`` or ``CorruptModel``.
            ObjectStoreError: when the store does not respond or refuses.
        """
        found = await self._read(model_id)
        if found is None:
            raise ModelNotPublished(
                f"model {model_id!r} is not in the model repository: there is no {published_key(model_id)} "
                "(`shashin model publish` writes it)"
            )
        return found

    async def _read(self, model_id: str) -> PublishedModel | None:
        check_model_id(model_id)
        try:
            data, _ = await self._store.read(published_key(model_id))
        except ObjectNotFound:
            return None
        return PublishedModel.from_json(data, model_id)

    async def publish(self, path: Path, model_id: str, dimensions: int) -> PublishedModel:
        """Store a checkpoint and then its manifest; returns the manifest.

        What is there already with the same content stays. A checkpoint that was lost or damaged since its
        manifest was written is written again.

        Raises:
            DifferentContent: when the model was published with another checkpoint, or is being.
            RepositoryError: when its manifest is there and cannot be read.
            ObjectStoreError: when the store does not respond or refuses.
        """
        entry = replace(await asyncio.to_thread(file_entry, path), name=CHECKPOINT)
        model = PublishedModel(model_id, dimensions, entry)
        before = await self._read(model_id)
        if before not in {None, model}:
            raise _different(published_key(model_id))
        await self._upload(path, model, vouched=before is not None)
        while before is None:
            try:
                await self._store.write(
                    published_key(model_id), model.to_json(), only_if=OnlyIf.absent()
                )
            except PreconditionFailed:
                # By another process, or by an attempt of this one whose answer was lost.
                before = await self._read(model_id)
            else:
                before = model
        if before != model:
            raise _different(published_key(model_id))
        return model

    async def _upload(self, path: Path, model: PublishedModel, *, vouched: bool) -> None:
        """Store the checkpoint; ``vouched`` if its manifest is there, so that other bytes are damage."""
        key = checkpoint_key(model.model_id)
        while (only_if := await condition_to_write(self._store, key, model.file)) is not None:
            if only_if != OnlyIf.absent() and not vouched:
                raise _different(key)
            try:
                await self._store.upload(key, path, only_if=only_if)
            except PreconditionFailed:
                continue  # written meanwhile: compared again

    async def fetch(self, model_id: str, folder: Path) -> tuple[PublishedModel, Path]:
        """Return a model's manifest, and the path of its verified checkpoint in a folder.

        A checkpoint that is in the folder with the right SHA-256 is not downloaded again. Several processes
        may share the folder.

        Raises:
            UserError: when it cannot be an id.
            ModelNotPublished: when the repository has no such model.
            CorruptModel: when the checkpoint is missing, cut short, or has another SHA-256.
            UnknownFormat: when this reader does not support the manifest's format version.
            ObjectStoreError: when the store does not respond or refuses.
            DiskUnavailable: when the folder cannot be used.
        """
        model = await self.read(model_id)
        path = folder / model_id / model.file.hashed_name
        if await _file_at(path) == model.file:
            return model, path
        key = checkpoint_key(model_id)
        try:
            await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
            await self._store.download(key, path)
        except ObjectNotFound as error:
            raise CorruptModel(
                f"{key} is missing, though {published_key(model_id)} names it: {_AGAIN}"
            ) from error
        except OSError as error:
            raise DiskUnavailable(f"{path} cannot be written: {error.strerror or error}") from error
        found = await _file_at(path)
        if found != model.file:
            await asyncio.to_thread(path.unlink, missing_ok=True)
            raise CorruptModel(f"{key} {_difference(found, model.file)}: {_AGAIN}")
        return model, path


_AGAIN = "publish the same checkpoint again"


async def _file_at(path: Path) -> FileEntry | None:
    """Describe a file as a checkpoint; None if there is none."""
    try:
        return replace(await asyncio.to_thread(file_entry, path), name=CHECKPOINT)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DiskUnavailable(f"{path} cannot be read: {error.strerror or error}") from error


def _difference(found: FileEntry | None, expected: FileEntry) -> str:
    if found is None:
        return "was deleted while it was downloaded"
    if found.size < expected.size:
        return f"is cut short: it has {found.size} of {expected.size} bytes"
    if found.size > expected.size:
        return f"has {found.size} bytes, expected {expected.size}"
    return f"has SHA-256 {found.sha256}, expected {expected.sha256}"


def _different(key: str) -> DifferentContent:
    return DifferentContent(
        f"{key} is of another checkpoint, and a published model is never overwritten: publish this one "
        "under another model id, or delete what is there if nothing uses it"
    )
