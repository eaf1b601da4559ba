"""Horizons: from which offset of each partition on the log has to be covered.

``serving/<model>/horizon/<partition>.json`` is written once, by the indexer that first opens the
partition, and never moved by a process. So shards that are lost and records that retention deletes
before they are sealed stay required, and are reported as missing until a person raises the horizon.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from pydantic import ConfigDict, TypeAdapter

from shashin.errors import CorruptShard, ObjectNotFound, PreconditionFailed
from shashin.objectstore.protocol import ObjectStore, OnlyIf
from shashin.repository.documents import read_document

FORMAT = "shashin.horizon/1"


@dataclass(frozen=True)
class Horizon:
    """The horizon of one partition."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    model_id: str
    partition: int
    offset: int

    @property
    def key(self) -> str:
        """The key of the object that stores it."""
        return f"serving/{self.model_id}/horizon/{self.partition:04d}.json"

    def to_json(self) -> bytes:
        """Return the horizon as it is stored."""
        return (json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n").encode()

    def stored(self, data: bytes) -> Horizon:
        """Return the horizon of the same model and partition that ``data`` stores.

        Raises:
            UnknownFormat: when this reader does not support its format version.
            CorruptShard: when it is not a valid horizon, or that of another partition or model.
        """
        horizon = read_document(data, _HORIZON, known=FORMAT, key=self.key, what="horizon")
        if horizon.key != self.key or horizon.offset < 0:
            raise CorruptShard(
                f"{self.key} is the horizon of partition {horizon.partition} of model "
                f"{horizon.model_id!r} at offset {horizon.offset}; expected partition "
                f"{self.partition} of {self.model_id!r} at offset 0 or more"
            )
        return horizon


_HORIZON = TypeAdapter(Horizon)


class Horizons:
    """The horizons of one model's partitions."""

    def __init__(self, store: ObjectStore, model_id: str) -> None:
        self._store = store
        self._model_id = model_id

    async def keep(self, partition: int, first: int) -> int:
        """Return the stored horizon of a partition; if there is none, store ``first``.

        Raises:
            RepositoryError: when the stored horizon cannot be read; it is not overwritten.
            ObjectStoreError: when the store does not respond or refuses.
        """
        horizon = Horizon(self._model_id, partition, first)
        while True:
            try:
                data, _ = await self._store.read(horizon.key)
            except ObjectNotFound:
                try:
                    await self._store.write(horizon.key, horizon.to_json(), only_if=OnlyIf.absent())
                except PreconditionFailed:
                    continue  # another replica opened the partition first
                return first
            return horizon.stored(data).offset
