"""This system's shards searched in process, as an index server searches them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.search.data import K, Numbers, Vectors
from bench.search.sealed import row_of
from shashin.serving.served_shards import ServedShards, Snapshot
from shashin.shards.format.manifest import Manifest
from shashin.shards.kinds import ivf_sq4, stack
from shashin.shards.kinds.protocol import GrowingKind, Hits
from shashin.shards.kinds.registry import DEFAULT_KIND, growing_kind
from shashin.shards.row_filter import RowFilter
from shashin.shards.sealed_shard import SealedShard
from shashin.shards.shard import Shard

EVERY_ROW = RowFilter()

FACTORS = (0.06, 0.12, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)
"""Of how many lists a search reads; 1 is what it reads by itself."""


def opened(folder: Path, manifests: Sequence[Manifest]) -> list[SealedShard]:
    """Open the shards of a folder."""
    return [SealedShard(manifest, folder / manifest.shard_id) for manifest in manifests]


def served(shards: Sequence[Shard]) -> ServedShards:
    """Serve shards; nothing is hidden."""
    serving = ServedShards()
    serving.serve(shards)
    serving.hidden_loaded = True
    return serving


def search(
    snapshot: Snapshot, query: Vectors, k: int = K, row_filter: RowFilter = EVERY_ROW
) -> Hits:
    """Return the hits of one query (dimensions,), as an endpoint finds them."""
    return snapshot.searched.search(query[np.newaxis], k, row_filter)


def listing_ids(hits: Hits) -> list[str]:
    """Return the listings of hits."""
    ends = np.cumsum(hits.id_lengths).tolist()
    text = hits.ids.decode()
    return [text[begin:end] for begin, end in pairwise([0, *ends])]


def found_rows(hits: Hits) -> Numbers:
    """Return the rows of hits."""
    return np.array([row_of(listing) for listing in listing_ids(hits)], dtype=np.int64)


@contextmanager
def probes_times(factor: float) -> Iterator[None]:
    """Read so many times as many lists as a search reads by itself."""
    own = ivf_sq4.probes_factor
    if factor == 1.0:
        yield
        return

    def scaled(k: int, rows_per_group: float) -> float:
        return factor * own(k, rows_per_group)

    patched: Sequence[Any] = (ivf_sq4, stack)
    for module in patched:
        module.probes_factor = scaled
    try:
        yield
    finally:
        for module in patched:
            module.probes_factor = own


def hide_share(shards: Sequence[SealedShard], share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Hide a share of the rows of shards, spread evenly; returns which rows are visible, in order."""
    rng = np.random.default_rng(seed)
    visible = []
    for shard in shards:
        hidden = rng.random(shard.rows) < share
        shard.hide_rows(np.flatnonzero(hidden))
        visible.append(~hidden)
    return np.concatenate(visible)


def open_kind() -> GrowingKind:
    """Return the kind of an open shard."""
    return growing_kind(DEFAULT_KIND)
