"""``hidden-<hash>.roaring``: which rows of a sealed shard were hidden as of a position in
``listings.hidden``.

One line of JSON, then the row numbers as a Roaring bitmap in its portable format
(https://github.com/RoaringBitmap/RoaringFormatSpec). A reader of the shard starts with these rows and
reads only what came after the position. The object's name has the hash of its content, and the header
that of the ``rows.arrow`` which the row numbers refer to: a replica that sealed other rows may have
left its own snapshot in the same folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from shashin.errors import CorruptShard
from shashin.offsets.log_position import LogPosition, furthest
from shashin.shards.format.hidden_header import FORMAT, SnapshotHeader, snapshot_name
from shashin.shards.format.manifest import Manifest

RowNumbers = npt.NDArray[np.uint32]


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
        header = SnapshotHeader(
            FORMAT,
            self.shard_id,
            self.rows_sha256,
            len(self.rows),
            self.position.topic_id,
            dict(self.position.offsets),
            self.created_at,
        )
        rows = BitMap(self.rows)
        rows.run_optimize()
        return header.line + bytes(rows.serialize())

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
        header = SnapshotHeader.of_line(line, key=key)
        try:
            rows: RowNumbers = np.array(BitMap.deserialize(bitmap), dtype=np.uint32)
        except (ValueError, TypeError, IndexError) as error:
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
            snapshot.rows_sha256 == manifest.rows_sha256
            and len(rows)
            and int(rows[-1]) >= manifest.rows
        ):
            raise CorruptShard(
                f"{key} names {len(rows)} rows up to {int(rows[-1]) if len(rows) else 0}; its header "
                f"says {header.hidden}, and the shard has {manifest.rows}"
            )
        return snapshot


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
    of_shard = [s for s in snapshots if s.rows_sha256 == manifest.rows_sha256]
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
