"""Manifests: ``manifest.json`` describes a shard, and writing it commits the shard."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from shashin.errors import CorruptShard, UnknownFormat, UserError
from shashin.model_space import check_model_id
from shashin.offsets.ranges import OffsetRange
from shashin.shards.format.file_entry import FileEntry
from shashin.shards.format.index_spec import IndexSpec
from shashin.shards.format.shard_id import only_range, shard_folder, shard_id

PLAIN_NAMES = "shashin.manifest/1"
"""The first format: an object has the plain name of its file."""

SEALED_ONLY = "shashin.manifest/2"
"""The second format: the content's hash is part of an object's name, so that a manifest vouches only
for its own files, whatever another replica uploads. Nothing about builds."""

FORMAT = "shashin.manifest/3"
"""What is written: names as in the second format, and what a built shard was made from."""

WITH_MODEL_FILES = "shashin.manifest/4"
"""What is written of a shard some of whose files belong to the model."""

READABLE = (PLAIN_NAMES, SEALED_ONLY, FORMAT, WITH_MODEL_FILES)

MANIFEST_FILE = "manifest.json"

ROWS_FILE = "rows.arrow"
"""The file of every shard that has its rows; the others are those of its kind of index."""


@dataclass(frozen=True)
class Manifest:
    """One sealed shard."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    shard_id: str
    tier: Annotated[str, Field(pattern="^[a-z][a-z0-9-]*$")]
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
    parents: tuple[str, ...] = ()
    """Ids of the shards that a build merged, or indexed again with another model, sorted; none if an
    indexer sealed it."""
    dropped_rows: int = 0
    """Rows of the parents that it lacks: hidden, in another parent as well, or without a photo that
    could be embedded again."""
    rewrites: int = 0
    """How often builds have rewritten its vectors; 0 if an indexer sealed it."""
    build: str = ""
    """Name of the IndexBuild; empty if an indexer sealed it."""
    model_files: tuple[str, ...] = ()
    """Names of the files that shards of the model share, sorted."""
    format: str = FORMAT
    """One of ``READABLE``."""

    @property
    def folder(self) -> str:
        """The key prefix of the shard's objects, without a final slash."""
        return shard_folder(self.model_id, self.tier, self.bucket_start, self.shard_id)

    @property
    def rows_sha256(self) -> str:
        """The hash of the shard's rows; empty if it names none."""
        return next((entry.sha256 for entry in self.files if entry.name == ROWS_FILE), "")

    @property
    def key(self) -> str:
        """The key of the manifest itself."""
        return f"{self.folder}/{MANIFEST_FILE}"

    def object_key(self, entry: FileEntry) -> str:
        """Return the key of a file's object."""
        if entry.name in self.model_files:
            return model_file_key(self.model_id, entry)
        name = entry.name if self.format == PLAIN_NAMES else entry.hashed_name
        return f"{self.folder}/{name}"

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
        document = asdict(self)
        if not self.model_files:
            del document["model_files"]  # a field of the newest format alone
        return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, *, key: str) -> Manifest:
        """Read the manifest that is stored under ``key``.

        Whatever becomes a path or a key is compared with what it derives from, never trusted.

        Raises:
            UnknownFormat: when this reader does not support its format version.
            CorruptShard: when it is not a valid manifest, or contradicts its key or itself.
        """
        manifest = _parsed(data, key)
        return _consistent(manifest, key, _contradiction(manifest, key))

    @classmethod
    def from_copy(cls, data: bytes, *, path: str, shard_id: str) -> Manifest:
        """Read the manifest of a copy of a shard, such as an image has: no key tells what it is.

        ``shard_id`` is the shard that it should describe.

        Raises:
            UnknownFormat, CorruptShard: as ``from_json``; the message names ``path``.
        """
        manifest = _parsed(data, path)
        contradiction = _contradiction(manifest, manifest.key)
        if contradiction is None and manifest.shard_id != shard_id:
            contradiction = f"it describes {manifest.shard_id!r} instead of {shard_id!r}"
        return _consistent(manifest, path, contradiction)


# Also validates types, since readers sort by offsets and allocate by row counts.
_MANIFEST = TypeAdapter(Manifest)


def _parsed(data: bytes, name: str) -> Manifest:
    try:
        document: dict[str, Any] = json.loads(data)
        found = document["format"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptShard(f"{name} is not a manifest: {error!r}") from error
    if found not in READABLE:
        raise UnknownFormat(
            f"{name} has format {found!r}; this version reads {', '.join(READABLE)}: upgrade "
            "the reader or rebuild the shard"
        )
    try:
        return _MANIFEST.validate_python(document)
    except ValidationError as error:
        raise CorruptShard(f"{name} is not a complete manifest: {error}") from error


def _consistent(manifest: Manifest, name: str, contradiction: str | None) -> Manifest:
    if contradiction is not None:
        raise CorruptShard(f"{name} contradicts itself: {contradiction}")
    return manifest


def _contradiction(manifest: Manifest, key: str) -> str | None:
    try:
        check_model_id(manifest.model_id)
    except UserError as error:
        return error.message
    ranges = manifest.source_ranges
    if not ranges or not all(0 <= r.from_offset < r.to_offset and r.partition >= 0 for r in ranges):
        return f"its ranges are {_listed(ranges)}; expected one or more, each with offsets"
    if any(one >= other or one.overlaps(other) for one, other in pairwise(ranges)):
        return f"its ranges are {_listed(ranges)}; expected them sorted, without an overlap"
    return _name_contradiction(manifest, key)


def _name_contradiction(manifest: Manifest, key: str) -> str | None:
    derived = shard_id(manifest.model_id, manifest.tier, manifest.source_ranges)
    if manifest.shard_id != derived:
        return f"its shard id is {manifest.shard_id!r}, but its ranges are those of {derived!r}"
    if manifest.key != key:
        return f"it describes the shard of {manifest.key!r}"
    names = [entry.name for entry in manifest.files]
    if len(set(names)) < len(names) or MANIFEST_FILE in names:
        return f"its files are named {names}; expected distinct names other than {MANIFEST_FILE}"
    shared = manifest.model_files
    if not set(shared) <= set(names) or bool(shared) != (manifest.format == WITH_MODEL_FILES):
        return (
            f"files of the model are {list(shared)} in format {manifest.format}; files are {names}"
        )
    return None


def model_file_key(model_id: str, entry: FileEntry) -> str:
    """Return the key of a file that belongs to a model."""
    return f"models/{model_id}/files/{entry.hashed_name}"


def _listed(ranges: tuple[OffsetRange, ...]) -> str:
    return ", ".join(map(str, ranges[:3])) + (", ..." if len(ranges) > 3 else "") or "none"


class KeyParts(NamedTuple):
    """What the key of a manifest names."""

    model_id: str
    tier: str
    bucket_start: str
    shard_id: str


def parts_of_key(key: str) -> KeyParts:
    """Return the parts of a manifest's key.

    Raises:
        ValueError: when no manifest has such a key.
    """
    parts = key.split("/")
    if len(parts) != 6 or (parts[0], parts[5]) != ("indexes", MANIFEST_FILE):
        raise ValueError(f"{key!r} is not the key of a manifest")
    return KeyParts(*parts[1:5])


def range_in_key(key: str) -> OffsetRange | None:
    """Return the range of the sealed shard whose manifest has this key; None for any other key."""
    try:
        parts = parts_of_key(key)
    except ValueError:
        return None
    return only_range(parts.model_id, parts.tier, parts.shard_id)
