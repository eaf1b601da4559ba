"""Pointers: ``serving/<model>/<tier>.json`` lists the shards that a tier should serve."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from pydantic import ConfigDict, TypeAdapter

from shashin.errors import CorruptShard
from shashin.repository.documents import read_document

FORMAT = "shashin.pointer/1"


@dataclass(frozen=True, order=True)
class PointedShard:
    """One shard that the tier should serve."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    shard_id: str
    manifest_key: str


@dataclass(frozen=True)
class Pointer:
    """The shards of one model's tier, sorted by id."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    model_id: str
    tier: str
    shards: tuple[PointedShard, ...]

    def to_json(self) -> bytes:
        """Return the pointer as it is stored."""
        return (json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, *, key: str) -> Pointer:
        """Read the pointer that is stored under ``key``.

        Raises:
            UnknownFormat: when this reader does not support its format version.
            CorruptShard: when it is not a valid pointer, or that of another tier.
        """
        pointer = read_document(data, _POINTER, known=FORMAT, key=key, what="pointer")
        if pointer_key(pointer.model_id, pointer.tier) != key:
            raise CorruptShard(
                f"{key} is the pointer of {pointer.model_id!r} {pointer.tier!r}: restore it, or delete "
                "it so that the image builder writes it again"
            )
        return replace(pointer, shards=tuple(sorted(pointer.shards)))


_POINTER = TypeAdapter(Pointer)


def pointer_key(model_id: str, tier: str) -> str:
    """Return the key of a tier's pointer."""
    return f"serving/{model_id}/{tier}.json"
