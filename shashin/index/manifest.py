"""Manifests: what a shard is, as ``manifest.json`` says it. The manifest is the shard's commit."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from shashin.errors import CorruptShard, UnknownFormat
from shashin.index.coverage import OffsetRange

FORMAT = "shashin.manifest/1"

INDEX_FILE = "index.usearch"
ROWS_FILE = "rows.arrow"
MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True)
class FileEntry:
    """One file of a shard."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    size: int
    """Bytes."""
    sha256: str
    """Hexadecimal."""


@dataclass(frozen=True)
class Manifest:
    """One sealed shard."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    shard_id: str
    tier: str
    bucket_start: int
    """Unix seconds."""
    bucket_seconds: int
    model_id: str
    dimensions: int
    metric: str
    stored_type: str
    index_kind: str
    index_parameters: dict[str, int]
    rows: int
    listings: int
    files: tuple[FileEntry, ...]
    source_ranges: tuple[OffsetRange, ...]
    cut_reason: str
    recall_at_10: float | None
    """Measured on a sample of the shard's own rows against exact search; None without rows."""
    created_at: float
    """Unix seconds."""
    hidden_offsets: dict[str, int] = field(default_factory=dict)
    """Partition of listings.hidden to the offset up to which its records were left out of the rows."""

    def to_json(self) -> bytes:
        """Return the manifest as it is stored."""
        document = {"format": FORMAT, **asdict(self)}
        return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, *, key: str) -> Manifest:
        """Read a manifest; ``key`` names it in errors.

        Raises:
            UnknownFormat: when its format version is not one that this reader knows.
            CorruptShard: when it is not a manifest at all.
        """
        try:
            document: dict[str, Any] = json.loads(data)
            found = document.pop("format")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CorruptShard(f"{key} is not a manifest: {error!r}") from error
        if found != FORMAT:
            raise UnknownFormat(
                f"{key} has format {found!r}; this version reads {FORMAT!r}: upgrade the reader "
                "or build the shard anew"
            )
        try:
            return _MANIFEST.validate_python(document)
        except ValidationError as error:
            raise CorruptShard(f"{key} is not a whole manifest: {error}") from error


# Also checks types: who sorts by offsets or allocates by rows may rely on them.
_MANIFEST = TypeAdapter(Manifest)


def shard_id(model_id: str, tier: str, source: OffsetRange) -> str:
    """Return the id that every replica gives the shard of this range."""
    return (
        f"{model_id}.{tier}.p{source.partition:04d}."
        f"{source.from_offset:012d}-{source.to_offset:012d}"
    )


def shard_folder(model_id: str, tier: str, bucket_start: int, shard: str) -> str:
    """Return the key prefix of a shard's objects, without a final slash."""
    return f"indexes/{model_id}/{tier}/{bucket_start}/{shard}"
