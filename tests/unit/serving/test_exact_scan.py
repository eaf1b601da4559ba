"""The exact answer over all shards, found in steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shashin.serving import exact_scan
from shashin.serving.exact_scan import ExactScan
from shashin.shards.format.row import RowAttributes
from shashin.shards.kinds.ivf_sq4 import KIND as IVF_SQ4
from shashin.shards.kinds.protocol import Hits, Vectors
from shashin.shards.row_filter import RowFilter
from shashin.shards.sealed_shard import SealedShard
from shashin.shards.shard import Shard
from tests.support.made_shards import listings, new_row, open_shard, vector_of, write

QUERY = vector_of("query")


def hits_of(shards: list[Shard], k: int, row_filter: RowFilter | None = None) -> Hits:
    scan = ExactScan(shards, QUERY, k, row_filter or RowFilter())
    while scan.step():
        pass
    return scan.hits()


def names(hits: Hits) -> list[str]:
    ends = np.cumsum(hits.id_lengths).tolist()
    text = hits.ids.decode()
    return [text[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def nearest(expected: dict[str, Vectors], k: int) -> list[str]:
    score = {name: float(np.max(vectors @ QUERY)) for name, vectors in expected.items()}
    return sorted(score, key=lambda name: -score[name])[:k]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_scan, "BLOCK_ROWS", 7)


def sealed(tmp_path: Path, first: int, end: int) -> SealedShard:
    shard = open_shard(listings(first, end), from_offset=first, kind=IVF_SQ4)
    folder = tmp_path / f"{first}"
    return SealedShard(write(shard, folder), folder)


def test_the_hits_are_the_nearest_of_all_shards(tmp_path: Path) -> None:
    shards = [sealed(tmp_path, 0, 40), open_shard(listings(40, 65), from_offset=40)]
    expected = {f"listing-{n}": vector_of(f"listing-{n}")[np.newaxis] for n in range(65)}
    for k in (1, 10, 65, 80):
        assert names(hits_of(shards, k)) == nearest(expected, k)


def test_hidden_and_replaced_rows_are_no_hits() -> None:
    shard = open_shard([*listings(0, 20), new_row("listing-3", 2)])
    shard.supersede("listing-3", 2)
    shard.hide("listing-5", 2)
    expected = {f"listing-{n}": vector_of(f"listing-{n}")[np.newaxis] for n in range(20)}
    expected["listing-3"] = vector_of("listing-3", 2)[np.newaxis]
    del expected["listing-5"]
    assert names(hits_of([shard], 30)) == nearest(expected, 30)


def test_only_rows_that_meet_the_filter_are_hits() -> None:
    hats = [
        new_row(f"hat-{n}", attributes=RowAttributes("hats", "ACME", 1, "JPY", 5)) for n in range(9)
    ]
    shard = open_shard([*listings(0, 20), *hats])
    expected = {f"hat-{n}": vector_of(f"hat-{n}")[np.newaxis] for n in range(9)}
    assert names(hits_of([shard], 30, RowFilter(categories=("hats",)))) == nearest(expected, 30)


def test_rows_that_come_during_the_scan_do_not_count() -> None:
    shard = open_shard(listings(0, 20))
    scan = ExactScan([shard], QUERY, 30, RowFilter())
    assert scan.step()
    shard.add(listings(20, 40), position=40, bucket_start=shard.bucket_start or 0)
    while scan.step():
        pass
    assert set(names(scan.hits())) == {f"listing-{n}" for n in range(20)}


def test_a_listing_counts_once_with_its_newest_version() -> None:
    first = open_shard([new_row("lamp"), new_row("mug")])
    second = open_shard([new_row("lamp", 2)], from_offset=2)
    hits = hits_of([first, second], 10)
    assert sorted(names(hits)) == ["lamp", "mug"]
    versions = dict(zip(names(hits), hits.versions.tolist(), strict=True))
    assert versions == {"lamp": 2, "mug": 1}


def test_nothing_is_found_where_nothing_is() -> None:
    assert hits_of([], 10).counts == [0]
    assert hits_of([open_shard()], 10).counts == [0]
