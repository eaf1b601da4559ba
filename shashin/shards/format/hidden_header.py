"""The first line of ``hidden-<hash>.roaring``: what a snapshot of hidden rows says of itself.

Read without the libraries of row numbers and of rows, which not every service has.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from shashin.errors import CorruptShard, UnknownFormat

FORMAT = "shashin.hidden/1"

_NAME = re.compile(r"hidden-([0-9a-f]{16})\.roaring")


@dataclass(frozen=True)
class SnapshotHeader:
    """The header of a snapshot, as it is stored."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    format: str
    shard_id: str
    rows_sha256: str
    """Of the rows that the numbers refer to."""
    hidden: Annotated[int, Field(ge=0)]
    """Number of hidden rows."""
    topic_id: str
    offsets: dict[int, Annotated[int, Field(ge=0)]]
    created_at: float
    """Unix seconds."""

    @property
    def line(self) -> bytes:
        """The header as it is stored, with its line break."""
        return json.dumps(_HEADER.dump_python(self, mode="json"), sort_keys=True).encode() + b"\n"

    @classmethod
    def of_line(cls, line: bytes, *, key: str) -> SnapshotHeader:
        """Read the header of the snapshot that is stored under ``key``.

        Raises:
            UnknownFormat: when this reader does not support its format version.
            CorruptShard: when it is damaged.
        """
        try:
            document = json.loads(line)
            found = document["format"]
            if found != FORMAT:
                raise UnknownFormat(
                    f"{key} has format {found!r}; this version reads {FORMAT!r}: upgrade the reader"
                )
            return _HEADER.validate_python(document)
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            raise CorruptShard(f"{key} is not a hidden snapshot: {error!r}") from error


_HEADER = TypeAdapter(SnapshotHeader)


def snapshot_name(data: bytes) -> str:
    """Return the name of the object with this content."""
    return f"hidden-{hashlib.sha256(data).hexdigest()[:16]}.roaring"


def is_snapshot_name(name: str) -> bool:
    """Whether an object in a shard's folder is a snapshot, by its name."""
    return _NAME.fullmatch(name) is not None
