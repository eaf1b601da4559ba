"""The quantizer of a model: what new shards are divided by, so that they can be searched together.

``models/<model>/quantizer.json`` names the file of the newest one. A build trains one from its rows if
there is none, or none that is fine enough for so many. Shards name their own in their manifest, so one
that has been replaced is needed, and stored, as long as a shard of it is.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter

from shashin.errors import CorruptShard, ObjectNotFound
from shashin.objectstore.protocol import ObjectStore
from shashin.repository.documents import read_document, update_document
from shashin.shards.format.file_entry import FileEntry, file_entry
from shashin.shards.format.manifest import model_file_key

FORMAT = "shashin.quantizer/1"


@dataclass(frozen=True)
class ModelQuantizer:
    """The quantizer of a model."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    model_id: str
    file: FileEntry
    lists: int

    def to_json(self) -> bytes:
        """Return it as it is stored."""
        return (json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n").encode()


_QUANTIZER = TypeAdapter(ModelQuantizer)


class Quantizers:
    """The quantizers of one model."""

    def __init__(self, store: ObjectStore, model_id: str) -> None:
        self._store = store
        self._model_id = model_id
        self._key = f"models/{model_id}/quantizer.json"

    async def newest(self) -> ModelQuantizer | None:
        """Return the model's quantizer; None if none was trained yet.

        Raises:
            RepositoryError: when it is stored and cannot be read.
            ObjectStoreError: when the store does not respond or refuses.
        """
        try:
            data, _ = await self._store.read(self._key)
        except ObjectNotFound:
            return None
        return self._parsed(data)

    async def fetch(self, quantizer: ModelQuantizer, folder: Path) -> Path:
        """Download a quantizer's file into a folder unless it is there, and verify it; returns its path.

        Raises:
            CorruptShard: when it is missing, or does not have its SHA-256.
        """
        path = folder / quantizer.file.hashed_name
        key = model_file_key(self._model_id, quantizer.file)
        if not await asyncio.to_thread(path.exists):
            try:
                await self._store.download(key, path)
            except ObjectNotFound as error:
                raise CorruptShard(
                    f"{key} is missing, though {self._key} names it: restore the object, or delete "
                    f"{self._key} so that another one is trained"
                ) from error
        found = await asyncio.to_thread(file_entry, path)
        if (found.size, found.sha256) != (quantizer.file.size, quantizer.file.sha256):
            await asyncio.to_thread(path.unlink)
            raise CorruptShard(
                f"{key} has {found.size} bytes with SHA-256 {found.sha256}; {self._key} says "
                f"{quantizer.file.size} bytes with {quantizer.file.sha256}: restore the object, or "
                f"delete {self._key} so that another one is trained"
            )
        return path

    async def offer(self, file: FileEntry, lists: int) -> None:
        """Let new shards use a stored quantizer, unless there is one with as many lists.

        Raises:
            RepositoryError: when what is stored cannot be read; it is not overwritten.
            ObjectStoreError: when the store does not respond or refuses.
        """

        def finer(data: bytes | None) -> bytes | None:
            if data is not None and self._parsed(data).lists >= lists:
                return None
            return ModelQuantizer(self._model_id, file, lists).to_json()

        await update_document(self._store, self._key, finer)

    def _parsed(self, data: bytes) -> ModelQuantizer:
        found = read_document(
            data, _QUANTIZER, known=[FORMAT], key=self._key, what="record of a quantizer"
        )
        if found.model_id != self._model_id or found.lists < 1:
            raise CorruptShard(
                f"{self._key} is that of model {found.model_id!r} with {found.lists} lists; expected "
                f"model {self._model_id!r}, and one list or more"
            )
        return found
