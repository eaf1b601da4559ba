"""A sealed shard whose index has the codes of other rows: hashes are right, and searches find the wrong ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from shashin.model_space import ModelSpace
from shashin.repository.pointer import PointedShard, Pointer
from shashin.repository.repository import ModelRepository
from shashin.shards.format.file_entry import file_entry
from shashin.shards.format.manifest import Manifest
from shashin.shards.format.row import NewRow, Row, RowAttributes
from shashin.shards.kinds.ivf_sq4 import CODES_FILE, KIND, SIGNS_FILE
from shashin.shards.kinds.ivf_sq4 import ROWS_FILE as LIST_ROWS_FILE
from shashin.shards.kinds.registry import growing_kind
from shashin.shards.open_shard import OpenShard
from shashin.tiers import HOURLY
from tests.support.embedded_listings import DIMENSIONS, MODEL, vector_of
from tests.support.hidden_map import HiddenMap
from tests.support.made_shards import BUCKET_START

ROWS = 20_000
"""Of fewer rows, a search compares all."""


async def sealed(repository: ModelRepository, scratch: Path, number: int) -> Manifest:
    """Commit the shard of a number, with a row per listing."""
    begin = number * ROWS
    shard = OpenShard(
        0, begin, ModelSpace(MODEL, DIMENSIONS), growing_kind("flat-f16"), HiddenMap()
    )
    names = [f"listing {begin + row}" for row in range(ROWS)]
    rows = [NewRow(Row(name, 1, 0, RowAttributes()), vector_of(name)) for name in names]
    shard.add(rows, position=begin + ROWS, bucket_start=BUCKET_START)
    folder = scratch / f"shard-{number}"
    manifest = shard.write(
        folder, tier=HOURLY, bucket_seconds=3600, reason="time", kind=KIND.training()
    )
    await repository.commit_shard(manifest, folder)
    return manifest


def with_wrong_codes(repository: Path, manifest: Manifest) -> Manifest:
    """Store a shard's codes in another order, as a faulty builder might; returns its manifest."""
    for name in (CODES_FILE, SIGNS_FILE, LIST_ROWS_FILE):
        (entry,) = (entry for entry in manifest.files if entry.name == name)
        path = repository / manifest.object_key(entry)
        array = np.load(path)
        array[:] = array[::-1].copy()
        header = path.read_bytes()[: path.stat().st_size - array.nbytes]
        path.write_bytes(header + array.tobytes())
        spoiled = replace(file_entry(path), name=name)
        files = tuple(spoiled if e.name == name else e for e in manifest.files)
        manifest = replace(manifest, files=files)
        path.rename(repository / manifest.object_key(spoiled))
    (repository / manifest.key).write_bytes(manifest.to_json())
    return manifest


def pointer_to(manifest: Manifest) -> Pointer:
    """Return the pointer of a tier that serves one shard."""
    return Pointer(MODEL, HOURLY, (PointedShard.of(manifest),))
