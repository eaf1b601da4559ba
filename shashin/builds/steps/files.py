"""The files that built-in steps leave for the steps after them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from shashin.errors import StepFailed
from shashin.offsets.log_position import LogPosition
from shashin.offsets.ranges import OffsetRange
from shashin.repository.repository import StoredShard
from shashin.shards.format.manifest import MANIFEST_FILE, Manifest

QUANTIZER = "quantizer"
"""Folder of the model's quantizer, if it has one; no shard's id is a plain word."""

_POSITION = "hidden-position.json"
_HIDDEN = "hidden.npy"
_SOURCES = "sources.json"
_NUMBERS, _VECTORS = "rows.npy", "vectors.npy"
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


def write_vectors(
    folder: Path,
    numbers: npt.NDArray[np.uint32],
    dimensions: int,
    blocks: Iterable[bytes],
) -> None:
    """Write the vectors of a shard's rows: ``blocks`` are the float16 values, in their order.

    ``numbers`` (n,) are the numbers of these rows, ascending.
    """
    folder.mkdir()
    np.save(folder / _NUMBERS, numbers)
    # Block by block, so that memory does not grow with the shard.
    with (folder / _VECTORS).open("wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (len(numbers), dimensions)}
        np.lib.format.write_array_header_1_0(file, header)
        file.writelines(blocks)


def open_vectors(folder: Path) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.float16]]:
    """Return the row numbers (n,), and the vectors (n, dimensions), memory-mapped."""
    numbers: npt.NDArray[np.uint32] = np.load(folder / _NUMBERS, allow_pickle=False)
    # An empty array cannot be mapped.
    mode: Literal["r"] | None = "r" if len(numbers) else None
    vectors: npt.NDArray[np.float16] = np.load(
        folder / _VECTORS, mmap_mode=mode, allow_pickle=False
    )
    return numbers, vectors


def link_or_copy(source: Path, target: Path) -> None:
    """Let a file appear at a second place."""
    try:
        os.link(source, target)
    except OSError:
        # The volume has no hard links.
        shutil.copyfile(source, target)


def write_sources(folder: Path, sources: Sequence[OffsetRange]) -> None:
    """Write the offsets that a shard counts as having which has no parents of its own model."""
    document = [[r.partition, r.from_offset, r.to_offset] for r in sources]
    (folder / _SOURCES).write_text(json.dumps(document), encoding="utf-8")


def read_sources(folder: Path) -> list[OffsetRange]:
    """Read what ``write_sources`` wrote."""
    document = json.loads((folder / _SOURCES).read_text(encoding="utf-8"))
    return [OffsetRange(*bounds) for bounds in document]


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
