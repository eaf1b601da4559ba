"""Rejections: ``serving/<model>/rejected/<shard id>.json`` asks for a built shard's parents in its place."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from pydantic import ConfigDict, TypeAdapter

from shashin.errors import CorruptShard
from shashin.repository.documents import read_document
from shashin.shards.format.manifest import parts_of_key

FORMAT = "shashin.rejected/1"


@dataclass(frozen=True)
class Rejection:
    """A built shard that its parents replace again."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    manifest_key: str

    @property
    def key(self) -> str:
        """The key of the object that stores it."""
        parts = parts_of_key(self.manifest_key)
        return f"{rejected_prefix(parts.model_id)}{parts.shard_id}.json"

    @property
    def shard_id(self) -> str:
        """The shard's id."""
        return parts_of_key(self.manifest_key).shard_id

    @property
    def tier(self) -> str:
        """The shard's tier."""
        return parts_of_key(self.manifest_key).tier

    def to_json(self) -> bytes:
        """Return the rejection as it is stored."""
        return json.dumps({"format": FORMAT, **asdict(self)}).encode()

    @classmethod
    def from_json(cls, data: bytes, *, key: str) -> Rejection:
        """Read the rejection that is stored under ``key``.

        Raises:
            UnknownFormat: when this reader does not support its format version.
            CorruptShard: when it is not a valid rejection, or that of another shard.
        """
        found = read_document(data, _REJECTION, known=[FORMAT], key=key, what="rejection")
        try:
            own = found.key == key
        except ValueError:
            own = False
        if not own:
            raise CorruptShard(f"{key} rejects the shard of {found.manifest_key!r}: delete it")
        return found


_REJECTION = TypeAdapter(Rejection)


def rejected_prefix(model_id: str) -> str:
    """Return what the keys of a model's rejections start with."""
    return f"serving/{model_id}/rejected/"
