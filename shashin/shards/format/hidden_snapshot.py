"""``hidden-<hash>.roaring``: which rows of a sealed shard were hidden as of a position in
``listings.hidden``.

One line of JSON, then the row numbers as a Roaring bitmap in its portable format
(https://github.com/RoaringBitmap/RoaringFormatSpec). A reader of the shard starts with these rows and
reads only what came after the position. The object's name has the hash of its content, and the header
that of the ``rows.arrow`` which the row numbers refer to: a replica that sealed other rows may have
left its own snapshot in the same folder.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pyroaring import BitMap

from shashin.errors import CorruptShard, UnknownFormat
from shashin.offsets.log_position import LogPosition, furthest
from shashin.shards.format.manifest import Manifest
from shashin.shards.format.rows_file import ROWS_FILE

FORMAT = "shashin.hidden/1"

RowNumbers = npt.NDArray[np.uint32]

_NAME = re.compile(r"hidden-([0-9a-f]{16})\.roaring")


@dataclass(frozen=True)
class _Header:
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


_HEADER = TypeAdapter(_Header)


@dataclass(frozen=True)
class HiddenSnapshot:
    """The hidden rows of one shard as of a position in ``listings.hidden``.

    All records before the position are reflected, and some later ones may be.
    """

    shard_id: str
    rows_sha256: str
    rows: RowNumbers
    """Numbers of the hidden rows, ascending."""
    position: LogPosition
    created_at: float
    """Unix seconds."""

    @property
    def data(self) -> bytes:
        """The snapshot as it is stored."""
        header = _Header(
            FORMAT,
            self.shard_id,
            self.rows_sha256,
            len(self.rows),
            self.position.topic_id,
            dict(self.position.offsets),
            self.created_at,
        )
        line = json.dumps(_HEADER.dump_python(header, mode="json"), sort_keys=True)
        rows = BitMap(self.rows)
        rows.run_optimize()
        return line.encode() + b"\n" + bytes(rows.serialize())

    @classmethod
    def of_data(cls, data: bytes, *, key: str, manifest: Manifest) -> HiddenSnapshot:
        """Read the snapshot that is stored under ``key``, in the folder of a shard.

        Raises:
            UnknownFormat: when this reader does not support its format version.
            CorruptShard: when it is damaged, or belongs to another shard.
        """
        if snapshot_name(data) != key.rpartition("/")[2]:
            raise CorruptShard(
                f"{key} is damaged: its content has another hash than its name: delete it; what was "
                "hidden is then read from listings.hidden"
            )
        line, _, bitmap = data.partition(b"\n")
        try:
            document = json.loads(line)
            found = document["format"]
            if found != FORMAT:
                raise UnknownFormat(
                    f"{key} has format {found!r}; this version reads {FORMAT!r}: upgrade the reader"
                )
            header = _HEADER.validate_python(document)
            rows: RowNumbers = np.array(BitMap.deserialize(bitmap), dtype=np.uint32)
        except (ValueError, KeyError, TypeError, IndexError, ValidationError) as error:
            raise CorruptShard(f"{key} is not a hidden snapshot: {error!r}") from error
        if header.shard_id != manifest.shard_id:
            raise CorruptShard(
                f"{key} is a snapshot of shard {header.shard_id!r}; expected {manifest.shard_id!r}"
            )
        snapshot = cls(
            header.shard_id,
            header.rows_sha256,
            rows,
            LogPosition(header.topic_id, header.offsets),
            header.created_at,
        )
        if len(rows) != header.hidden or (
            snapshot.rows_sha256 == rows_sha256_of(manifest)
            and len(rows)
            and int(rows[-1]) >= manifest.rows
        ):
            raise CorruptShard(
                f"{key} names {len(rows)} rows up to {int(rows[-1]) if len(rows) else 0}; its header "
                f"says {header.hidden}, and the shard has {manifest.rows}"
            )
        return snapshot


def snapshot_name(data: bytes) -> str:
    """Return the name of the object with this content."""
    return f"hidden-{hashlib.sha256(data).hexdigest()[:16]}.roaring"


def is_snapshot_name(name: str) -> bool:
    """Whether an object in a shard's folder is a snapshot, by its name."""
    return _NAME.fullmatch(name) is not None


def rows_sha256_of(manifest: Manifest) -> str:
    """Return the hash of the rows of a shard; empty if the manifest names none."""
    return next((entry.sha256 for entry in manifest.files if entry.name == ROWS_FILE), "")


@dataclass(frozen=True)
class HiddenState:
    """What the snapshots of a shard tell together."""

    rows: RowNumbers
    """Numbers of the rows that are hidden, ascending."""
    position: LogPosition
    """Everything before it is reflected in ``rows``. Nothing, if the shard has no snapshot."""
    of_another_topic: bool = False
    """Whether the only positions are those of a topic that was deleted: what was hidden after them
    is lost, but what they hide stays hidden."""


def combined(manifest: Manifest, snapshots: Iterable[HiddenSnapshot], topic_id: str) -> HiddenState:
    """Combine the snapshots of a shard, for readers of the topic with this id.

    Hiding only grows, so each row that any of them hides is hidden, and for each partition the
    furthest of their offsets counts. The manifest itself is a snapshot without hidden rows: a build
    leaves out what was hidden up to its ``hidden_offsets``.
    """
    of_shard = [s for s in snapshots if s.rows_sha256 == rows_sha256_of(manifest)]
    positions = [
        LogPosition("", {int(p): offset for p, offset in manifest.hidden_offsets.items()}),
        *(snapshot.position for snapshot in of_shard),
    ]
    known = [p for p in positions if p.offsets]
    usable = [p for p in known if p.may_be_of(topic_id)]
    rows: RowNumbers = np.unique(
        np.concatenate([np.empty(0, dtype=np.uint32), *(s.rows for s in of_shard)])
    )
    return HiddenState(rows, furthest(topic_id, usable), bool(known) and not usable)


def newest_at(manifest: Manifest, snapshots: Iterable[HiddenSnapshot]) -> float:
    """Return when the newest snapshot of a shard was made, in Unix seconds; 0 if it has none.

    As for ``combined``, a built shard's manifest is one.
    """
    of_shard = [s.created_at for s in snapshots if s.rows_sha256 == rows_sha256_of(manifest)]
    built = [manifest.created_at] if manifest.hidden_offsets else []
    return max([*of_shard, *built], default=0.0)
