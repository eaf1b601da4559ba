"""Pointers: ``serving/<model>/<tier>.json`` lists the shards that a tier should serve."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from pydantic import ConfigDict, TypeAdapter

from shashin.errors import CorruptShard
from shashin.offsets.ranges import OffsetRange
from shashin.repository.documents import read_document
from shashin.shards.format.manifest import Manifest

WITHOUT_RANGES = "shashin.pointer/1"
"""The first format: names shards and nothing else of them."""

FORMAT = "shashin.pointer/2"
"""What is written: with what planning, coverage and a start need to know of each shard, so that they
need not read its manifest, nor list what was ever sealed."""


@dataclass(frozen=True, order=True)
class PointedShard:
    """One shard that the tier should serve."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    shard_id: str
    manifest_key: str
    ranges: tuple[OffsetRange, ...] = ()
    """Its source ranges; empty if they are not known."""
    bucket_start: int = 0
    """Unix seconds."""
    bucket_seconds: int = 0
    rows: int = 0
    rewrites: int = 0
    """How often builds have rewritten its vectors."""

    @classmethod
    def of(cls, manifest: Manifest) -> PointedShard:
        """Return the entry of a shard."""
        return cls(
            manifest.shard_id,
            manifest.key,
            manifest.source_ranges,
            manifest.bucket_start,
            manifest.bucket_seconds,
            manifest.rows,
            manifest.rewrites,
        )


@dataclass(frozen=True)
class Pointer:
    """The shards of one model's tier, sorted by id."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    model_id: str
    tier: str
    shards: tuple[PointedShard, ...]

    @property
    def has_ranges(self) -> bool:
        """Whether the ranges of every shard are known."""
        return all(shard.ranges for shard in self.shards)

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
        pointer = read_document(
            data, _POINTER, known=[WITHOUT_RANGES, FORMAT], key=key, what="pointer"
        )
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


def history_prefix(model_id: str, tier: str) -> str:
    """Return what the keys of the copies of a tier's earlier pointers start with."""
    return f"serving/{model_id}/history/{tier}/"
