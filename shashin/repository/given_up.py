"""Given-up offsets: below which a person has decided to go on without what the log has lost.

``serving/<model>/given-up/<partition>.json`` is written by an indexer that is told to continue after a
gap. The gap stays missing in coverage; but no later start stops at it, or counts it again.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass

from pydantic import ConfigDict, TypeAdapter

from shashin.errors import CorruptShard, ObjectNotFound
from shashin.objectstore.protocol import ObjectStore
from shashin.repository.documents import read_document, update_document

FORMAT = "shashin.given-up/1"


@dataclass(frozen=True)
class GivenUp:
    """What is given up of one partition of ``vectors.embedded``."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    model_id: str
    partition: int
    below: int
    """Offsets below this that neither a shard nor the log holds are known to be lost."""
    given_up_at: float = 0.0
    """Unix seconds."""

    @property
    def key(self) -> str:
        """The key of the object that stores it."""
        return f"serving/{self.model_id}/given-up/{self.partition:04d}.json"

    def to_json(self) -> bytes:
        """Return it as it is stored."""
        return (json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n").encode()

    def stored(self, data: bytes) -> GivenUp:
        """Return that of the same model and partition that ``data`` stores.

        Raises:
            UnknownFormat: when this reader does not support its format version.
            CorruptShard: when it is not valid, or that of another partition or model.
        """
        found = read_document(
            data, _GIVEN_UP, known=[FORMAT], key=self.key, what="record of given-up offsets"
        )
        if found.key != self.key or found.below < 0:
            raise CorruptShard(
                f"{self.key} is that of partition {found.partition} of model {found.model_id!r} "
                f"below offset {found.below}; expected partition {self.partition} of "
                f"{self.model_id!r}, and an offset of 0 or more"
            )
        return found


_GIVEN_UP = TypeAdapter(GivenUp)


class GivenUpOffsets:
    """The given-up offsets of one model's partitions."""

    def __init__(self, store: ObjectStore, model_id: str) -> None:
        self._store = store
        self._model_id = model_id

    async def below(self, partition: int) -> int:
        """Return the offset below which losses of a partition are given up; 0 if none are.

        Raises:
            RepositoryError: when it is stored and cannot be read.
            ObjectStoreError: when the store does not respond or refuses.
        """
        none = GivenUp(self._model_id, partition, 0)
        try:
            data, _ = await self._store.read(none.key)
        except ObjectNotFound:
            return 0
        return none.stored(data).below

    async def give_up(self, partition: int, below: int) -> None:
        """Store that losses of a partition below an offset are given up; it never decreases.

        Raises:
            RepositoryError: when what is stored cannot be read; it is not overwritten.
            ObjectStoreError: when the store does not respond or refuses.
        """
        new = GivenUp(self._model_id, partition, below, time.time())

        def raised(data: bytes | None) -> bytes | None:
            known = data is not None and new.stored(data).below >= below
            return None if known else new.to_json()

        await update_document(self._store, new.key, raised)
