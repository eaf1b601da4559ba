"""Manifests: ``manifest.json`` describes a shard, and writing it commits the shard."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from shashin.errors import CorruptShard, UnknownFormat
from shashin.offsets.ranges import OffsetRange
from shashin.shards.format.file_entry import FileEntry
from shashin.shards.format.index_spec import IndexSpec
from shashin.shards.format.shard_id import shard_folder

FORMAT = "shashin.manifest/1"

MANIFEST_FILE = "manifest.json"


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
    """Measured with a sample of the shard's rows against exact search; None without rows."""
    created_at: float
    """Unix seconds."""
    hidden_offsets: dict[str, int] = field(default_factory=dict)
    """Partition of listings.hidden to the offset up to which its hidden rows were dropped."""

    @property
    def folder(self) -> str:
        """The key prefix of the shard's objects, without a final slash."""
        return shard_folder(self.model_id, self.tier, self.bucket_start, self.shard_id)

    @property
    def key(self) -> str:
        """The key of the manifest itself."""
        return f"{self.folder}/{MANIFEST_FILE}"

    @property
    def index_spec(self) -> IndexSpec:
        """The description of the index that a reader needs to open it."""
        return IndexSpec(
            self.index_kind,
            self.metric,
            self.stored_type,
            self.dimensions,
            self.index_parameters,
        )

    def to_json(self) -> bytes:
        """Return the manifest as it is stored."""
        document = {"format": FORMAT, **asdict(self)}
        return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, *, key: str) -> Manifest:
        """Read a manifest; ``key`` names it in errors.

        Raises:
            UnknownFormat: when this reader does not support its format version.
            CorruptShard: when it is not a valid manifest.
        """
        try:
            document: dict[str, Any] = json.loads(data)
            found = document.pop("format")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CorruptShard(f"{key} is not a manifest: {error!r}") from error
        if found != FORMAT:
            raise UnknownFormat(
                f"{key} has format {found!r}; this version reads {FORMAT!r}: upgrade the reader "
                "or rebuild the shard"
            )
        try:
            return _MANIFEST.validate_python(document)
        except ValidationError as error:
            raise CorruptShard(f"{key} is not a complete manifest: {error}") from error


# Also validates types, since readers sort by offsets and allocate by row counts.
_MANIFEST = TypeAdapter(Manifest)
