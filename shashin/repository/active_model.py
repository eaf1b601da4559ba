"""The active model: ``serving/active.json`` names the model that searches use.

It is changed only under a precondition. Without it no model is active, and every router searches the
model of its own settings.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter

from shashin.errors import CorruptShard, ObjectNotFound, PreconditionFailed, UserError
from shashin.model_space import ModelSpace, check_model_id
from shashin.objectstore.protocol import ObjectStore, OnlyIf, Version
from shashin.repository.documents import read_document

FORMAT = "shashin.active-model/1"
KEY = "serving/active.json"


@dataclass(frozen=True)
class ActiveModel:
    """The model that searches use."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    model: str
    dimensions: Annotated[int, Field(ge=1, le=8192)]
    """Length of its vectors."""
    previous: str = ""
    """The model that was active before; empty if there was none."""
    at: float = 0.0
    """When it was activated, Unix seconds."""

    @property
    def space(self) -> ModelSpace:
        """The model and the length of its vectors."""
        return ModelSpace(self.model, self.dimensions)

    def to_json(self) -> bytes:
        """Return the document as it is stored."""
        return (json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> ActiveModel:
        """Read the stored document.

        Raises:
            UnknownFormat: when this reader does not support its format version.
            CorruptShard: when it is not a valid document.
        """
        found = read_document(data, _ACTIVE, known=[FORMAT], key=KEY, what="active model")
        try:
            check_model_id(found.model)
        except UserError as error:
            raise CorruptShard(f"{KEY} is not an active model: {error.message}") from error
        return found


_ACTIVE = TypeAdapter(ActiveModel)


class ActiveModels:
    """Reads and changes the active model of a repository."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._known: tuple[Version, ActiveModel] | None = None

    async def read(self) -> ActiveModel | None:
        """Return the active model; None if no model was ever activated.

        Cheap to poll: it is read only if its version has changed.

        Raises:
            RepositoryError: when it cannot be read.
            ObjectStoreError: when the store does not respond or refuses.
        """
        found = await self._read()
        return found[1] if found else None

    async def _read(self) -> tuple[Version, ActiveModel] | None:
        try:
            known = self._known
            if known is None or known[0] != (await self._store.stat(KEY)).version:
                data, version = await self._store.read(KEY)
                known = self._known = (version, ActiveModel.from_json(data))
        except ObjectNotFound:
            self._known = None
        return self._known

    async def activate_first(self, space: ModelSpace, *, at: float) -> ActiveModel:
        """Make a model active if none is; returns the active one.

        Raises:
            RepositoryError: when the active model cannot be read; it is not overwritten.
            ObjectStoreError: when the store does not respond or refuses.
        """
        while True:
            found = await self.read()
            if found is not None:
                return found
            first = ActiveModel(space.model_id, space.dimensions, at=at)
            try:
                await self._store.write(KEY, first.to_json(), only_if=OnlyIf.absent())
            except PreconditionFailed:
                continue
            return first

    async def activate(self, space: ModelSpace, *, at: float) -> ActiveModel:
        """Make a model active; returns the stored document, unchanged if it was active already.

        Raises:
            PreconditionFailed: when another model was activated meanwhile: check again.
            RepositoryError: when the active model cannot be read; it is not overwritten.
            ObjectStoreError: when the store does not respond or refuses.
        """
        found = await self._read()
        if found is not None and found[1].space == space:
            return found[1]
        previous, only_if = "", OnlyIf.absent()
        if found is not None:
            previous, only_if = found[1].model, OnlyIf.unchanged(found[0])
        active = ActiveModel(space.model_id, space.dimensions, previous, at)
        await self._store.write(KEY, active.to_json(), only_if=only_if)
        return active
