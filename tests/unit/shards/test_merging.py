"""Merging shards: every visible row once, with its vector, and a manifest that says of what."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shashin.errors import CorruptShard
from shashin.offsets.ranges import OffsetRange
from shashin.shards.format.row import NewRow, Row
from shashin.shards.kinds.names import kind_names
from shashin.shards.kinds.registry import index_kind
from shashin.shards.merging import MERGED, MergedBucket, Parent, merge_shards
from shashin.shards.sealed_shard import SealedShard
from shashin.tiers import DAILY
from tests.support.made_shards import BUCKET_START, new_row, open_shard, vector_of, write

BUCKET = MergedBucket(DAILY, BUCKET_START, 86_400, "daily-1")
LISTINGS = st.builds(
    new_row,
    st.sampled_from(["lamp", "chair", "円", "desk"]),
    version=st.integers(1, 3),
    photo=st.integers(0, 2),
)


def parent_of(
    rows: Sequence[NewRow],
    folder: Path,
    *,
    offset: int,
    hidden: Sequence[int] = (),
    rewrites: int = 0,
) -> Parent:
    shard = open_shard(from_offset=offset)
    shard.add(rows, position=offset + 10, bucket_start=BUCKET_START)
    manifest = write(shard, folder, rewrites=rewrites)
    return Parent(manifest, folder, np.array(hidden, dtype=np.uint32))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(LISTINGS, max_size=8), min_size=1, max_size=4),
    st.sampled_from(kind_names()),
    st.integers(0, 1000),
)
def test_a_merged_shard_has_every_visible_row_once_with_its_vector(
    inputs: list[list[NewRow]], kind: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        expected: dict[Row, NewRow] = {}
        parents, total = [], 0
        for number, rows in enumerate(inputs):
            # A shard has each photo of a version once.
            distinct = list({r.row: r for r in rows}.values())
            hidden = np.flatnonzero(rng.random(len(distinct)) < 0.3)
            folder = scratch / f"parent-{number}"
            parents.append(parent_of(distinct, folder, offset=10 * number, hidden=hidden.tolist()))
            total += len(distinct)
            for position, new in enumerate(distinct):
                if position not in hidden:
                    expected.setdefault(new.row, new)
        seen: list[tuple[int, int]] = []
        manifest = merge_shards(
            parents[::-1],
            index_kind(kind),
            scratch / "merged",
            BUCKET,
            on_progress=lambda done, of: seen.append((done, of)),
        )
        shard = SealedShard(manifest, scratch / "merged")
        assert [shard.row(n) for n in range(shard.rows)] == list(expected)
        for number, row in enumerate(expected):
            vector = vector_of(row.listing_id, row.version, row.photo_number)
            assert shard.vectors([number])[0] == pytest.approx(vector, abs=2e-2)
    assert (manifest.rows, manifest.dropped_rows) == (len(expected), total - len(expected))
    assert manifest.listings == len({row.listing_id for row in expected})
    assert manifest.source_ranges == (OffsetRange(0, 0, 10 * len(inputs)),)
    assert (manifest.tier, manifest.bucket_start, manifest.bucket_seconds) == (
        DAILY,
        BUCKET_START,
        86_400,
    )
    assert manifest.parents == tuple(sorted(p.manifest.shard_id for p in parents))
    assert (manifest.rewrites, manifest.build, manifest.cut_reason) == (1, "daily-1", MERGED)
    assert not expected or seen[-1] == (len(expected), len(expected))


def test_the_most_rewritten_parent_counts(tmp_path: Path) -> None:
    parents = [
        parent_of([new_row(f"lamp-{n}")], tmp_path / str(n), offset=10 * n, rewrites=rewrites)
        for n, rewrites in enumerate([0, 2, 1])
    ]
    manifest = merge_shards(
        parents, index_kind("flat-f16"), tmp_path / "merged", BUCKET, on_progress=lambda *_: None
    )
    assert manifest.rewrites == 3


def test_shards_of_two_models_are_not_merged(tmp_path: Path) -> None:
    one = parent_of([new_row("lamp")], tmp_path / "one", offset=0)
    other = parent_of([new_row("chair")], tmp_path / "other", offset=10)
    other = replace(other, manifest=replace(other.manifest, model_id="another"))
    with pytest.raises(
        CorruptShard, match=r"shards of another .* and test-model .* cannot be merged"
    ):
        merge_shards(
            [one, other],
            index_kind("flat-f16"),
            tmp_path / "m",
            BUCKET,
            on_progress=lambda *_: None,
        )
