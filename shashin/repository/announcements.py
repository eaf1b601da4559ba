"""Announcements: ``announced/<model>/<tier>/<shard id>.json`` says that a shard is being committed.

It is written before the shard's files and its manifest, and deleted by the image builder once the
shard is served or known to be superfluous. So whatever is new in the repository is found by listing
what is announced, however much was ever sealed. A folder without manifest and announcement is
garbage.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from pydantic import ConfigDict, TypeAdapter

from shashin.errors import CorruptShard
from shashin.repository.documents import read_document
from shashin.shards.format.manifest import parts_of_key

FORMAT = "shashin.announcement/1"

ABANDONED_AFTER_SECONDS = 7 * 86400
"""A shard whose manifest is still missing then will never have one: its writer is gone."""


@dataclass(frozen=True)
class Announcement:
    """A shard that is being committed, or was committed and is not planned yet."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    manifest_key: str
    at: float
    """Unix seconds."""

    @property
    def key(self) -> str:
        """The key of the object that stores it."""
        parts = parts_of_key(self.manifest_key)
        return f"{announced_prefix(parts.model_id)}{parts.tier}/{parts.shard_id}.json"

    def to_json(self) -> bytes:
        """Return the announcement as it is stored."""
        return (json.dumps({"format": FORMAT, **asdict(self)}) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, *, key: str) -> Announcement:
        """Read the announcement that is stored under ``key``.

        Raises:
            UnknownFormat: when this reader does not support its format version.
            CorruptShard: when it is not a valid announcement, or that of another shard.
        """
        found = read_document(data, _ANNOUNCEMENT, known=[FORMAT], key=key, what="announcement")
        try:
            own = found.key == key
        except ValueError:
            own = False
        if not own:
            raise CorruptShard(f"{key} announces the shard of {found.manifest_key!r}")
        return found


_ANNOUNCEMENT = TypeAdapter(Announcement)


def announced_prefix(model_id: str) -> str:
    """Return what the keys of a model's announcements start with."""
    return f"announced/{model_id}/"
