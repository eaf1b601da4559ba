"""Horizons: from which offset of each partition on the log has to be covered.

``serving/<model>/horizon/<partition>.json`` is written by the indexer that first opens the partition.
Only the retention of shards raises it, to the end of what it takes out of service, and a person. So
shards that are lost and records that a broker deletes before they are sealed stay required, and are
reported as missing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from pydantic import ConfigDict, TypeAdapter

from shashin.errors import CorruptShard, ObjectNotFound, PreconditionFailed
from shashin.objectstore.protocol import ObjectStore, OnlyIf
from shashin.repository.documents import read_document, update_document

NEVER_RAISED = "shashin.horizon/1"
"""The first format: without the time at which it was raised."""

READ_FROM_HORIZON = "shashin.horizon/2"
"""The second format: without the offset at which a second model's indexer began to read."""

FORMAT = "shashin.horizon/3"
"""What is written."""


@dataclass(frozen=True)
class Horizon:
    """The horizon of one partition."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    model_id: str
    partition: int
    offset: int
    raised_at: float = 0.0
    """Unix seconds; 0 if it is where the partition was opened."""
    live_from: int | None = None
    """Where the model's indexer began to read, beside an active model: what is between the horizon and
    it comes from builds. None if it began at the horizon."""

    @property
    def reads_from(self) -> int:
        """The first offset that the model's indexer has to read or find sealed."""
        return max(self.offset, self.live_from or 0)

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
        horizon = read_document(
            data,
            _HORIZON,
            known=[NEVER_RAISED, READ_FROM_HORIZON, FORMAT],
            key=self.key,
            what="horizon",
        )
        if horizon.key != self.key or horizon.offset < 0 or (horizon.live_from or 0) < 0:
            raise CorruptShard(
                f"{self.key} is the horizon of partition {horizon.partition} of model "
                f"{horizon.model_id!r} at offset {horizon.offset}, read from {horizon.live_from}; "
                f"expected partition {self.partition} of {self.model_id!r}, and offsets of 0 or more"
            )
        return horizon


_HORIZON = TypeAdapter(Horizon)


class Horizons:
    """The horizons of one model's partitions."""

    def __init__(self, store: ObjectStore, model_id: str) -> None:
        self._store = store
        self._model_id = model_id

    async def keep(self, partition: int, first: int, live_from: int | None = None) -> Horizon:
        """Return the stored horizon of a partition; if there is none, store ``first``.

        Raises:
            RepositoryError: when the stored horizon cannot be read; it is not overwritten.
            ObjectStoreError: when the store does not respond or refuses.
        """
        horizon = Horizon(self._model_id, partition, first, live_from=live_from)
        while True:
            found = await self.read(partition)
            if found is not None:
                return found
            try:
                await self._store.write(horizon.key, horizon.to_json(), only_if=OnlyIf.absent())
            except PreconditionFailed:
                continue  # another replica opened the partition first
            return horizon

    async def read(self, partition: int) -> Horizon | None:
        """Return the stored horizon of a partition; None if there is none.

        Raises:
            RepositoryError: when it cannot be read.
            ObjectStoreError: when the store does not respond or refuses.
        """
        horizon = Horizon(self._model_id, partition, 0)
        try:
            data, _ = await self._store.read(horizon.key)
        except ObjectNotFound:
            return None
        return horizon.stored(data)

    async def all(self) -> list[Horizon]:
        """Return the stored horizons of all partitions.

        Raises:
            RepositoryError: when one cannot be read.
            ObjectStoreError: when the store does not respond or refuses.
        """
        found = []
        for info in await self._store.list_objects(f"serving/{self._model_id}/horizon/"):
            name = info.key.rpartition("/")[2].removesuffix(".json")
            horizon = await self.read(int(name)) if name.isdecimal() else None
            if horizon is not None:
                found.append(horizon)
        return found

    async def raise_to(self, offsets: Mapping[int, int]) -> None:
        """Raise the horizons of partitions; those that are as high already stay.

        Raises:
            RepositoryError: when a stored horizon cannot be read; it is not overwritten.
            ObjectStoreError: when the store does not respond or refuses.
        """
        for partition, offset in sorted(offsets.items()):
            await self._raise(Horizon(self._model_id, partition, offset, time.time()))

    async def _raise(self, horizon: Horizon) -> None:
        def raised(data: bytes | None) -> bytes | None:
            if data is None:
                return horizon.to_json()
            stored = horizon.stored(data)
            if stored.offset >= horizon.offset:
                return None
            return replace(horizon, live_from=stored.live_from).to_json()

        await update_document(self._store, horizon.key, raised)
