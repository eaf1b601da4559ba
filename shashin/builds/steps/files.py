"""The files that built-in steps leave for the steps after them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shashin.errors import StepFailed
from shashin.offsets.log_position import LogPosition
from shashin.repository.repository import StoredShard
from shashin.shards.format.manifest import MANIFEST_FILE, Manifest

_POSITION = "hidden-position.json"
_HIDDEN = "hidden.npy"
_DTYPE = np.dtype("<u4")


def write_manifests(folder: Path, shards: list[StoredShard]) -> None:
    """Write the manifests of the shards that a build reads, each in a folder of its own."""
    for stored in shards:
        path = folder / stored.manifest.shard_id / MANIFEST_FILE
        path.parent.mkdir(parents=True)
        path.write_bytes(stored.manifest.to_json())
        (path.parent / "key").write_text(stored.manifest_key, encoding="utf-8")


def read_manifests(folder: Path) -> list[StoredShard]:
    """Read what ``write_manifests`` wrote, sorted by shard id.

    Raises:
        RepositoryError: when one cannot be read.
    """
    found = []
    for path in sorted(folder.glob(f"*/{MANIFEST_FILE}")):
        key = (path.parent / "key").read_text(encoding="utf-8")
        found.append(StoredShard(Manifest.from_json(path.read_bytes(), key=key), key))
    return found


@dataclass(frozen=True)
class HiddenRows:
    """What is hidden in a shard that a build reads."""

    rows: npt.NDArray[np.uint32]
    """Numbers of the hidden rows, ascending."""
    position: LogPosition
    """Everything in ``listings.hidden`` before it is reflected."""


def write_hidden(folder: Path, hidden: HiddenRows) -> None:
    """Write the hidden rows of a shard into its folder."""
    np.save(folder / _HIDDEN, hidden.rows.astype(_DTYPE))
    write_position(folder, hidden.position)


def read_hidden(folder: Path) -> HiddenRows:
    """Read what ``write_hidden`` wrote."""
    return HiddenRows(np.load(folder / _HIDDEN, allow_pickle=False), read_position(folder))


def write_position(folder: Path, position: LogPosition) -> None:
    """Write the position in ``listings.hidden`` that a shard reflects."""
    document = {"topic_id": position.topic_id, "offsets": dict(position.offsets)}
    (folder / _POSITION).write_text(json.dumps(document), encoding="utf-8")


def read_position(folder: Path) -> LogPosition:
    """Read what ``write_position`` wrote."""
    document = json.loads((folder / _POSITION).read_text(encoding="utf-8"))
    offsets = {int(partition): offset for partition, offset in document["offsets"].items()}
    return LogPosition(document["topic_id"], offsets)


def only_manifest(folder: Path) -> Manifest:
    """Return the manifest of the shard that was built into a folder.

    Raises:
        StepFailed: when there is none.
    """
    try:
        data = (folder / MANIFEST_FILE).read_bytes()
        document = json.loads(data)
        key = "/".join(
            [
                "indexes",
                document["model_id"],
                document["tier"],
                str(document["bucket_start"]),
                document["shard_id"],
                MANIFEST_FILE,
            ]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StepFailed(f"{folder} has no manifest of a shard: {error}") from error
    return Manifest.from_json(data, key=key)
