"""Visibility end to end: random histories of listings over open and sealed shards, against a model."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shashin.serving.served_shards import ServedShards, Snapshot
from shashin.shards.format.row import NewRow, Row, RowAttributes
from shashin.shards.kinds import stack as stack_module
from shashin.shards.kinds.protocol import GrowingKind
from shashin.shards.kinds.registry import growing_kind
from shashin.shards.open_shard import OpenShard
from shashin.shards.sealed_shard import SealedShard
from shashin.shards.shard import Shard
from shashin.shards.visibility import HiddenEntry
from tests.support.hidden_log import hide
from tests.support.hidden_map import HiddenMap
from tests.support.made_shards import BUCKET_START, new_row, open_shard, vectors, write
from tests.support.searching import FoundRow, search_shards

LISTINGS = ["lamp", "chair", "mug", "hat"]

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("list"), st.sampled_from(LISTINGS), st.integers(1, 2)),
        st.tuples(st.just("update"), st.sampled_from(LISTINGS), st.integers(1, 2)),
        st.tuples(st.just("sell"), st.sampled_from(LISTINGS), st.just(0)),
        st.tuples(st.just("hide again"), st.sampled_from(LISTINGS), st.integers(0, 3)),
        st.tuples(st.just("repeat"), st.sampled_from(LISTINGS), st.integers(0, 3)),
        st.tuples(st.just("seal"), st.sampled_from(LISTINGS), st.integers(0, 2)),
        st.tuples(st.just("search"), st.just(""), st.integers(1, 6)),
    ),
    max_size=30,
)


@dataclass
class Model:
    """The expected state: the rows of each shard, and the bounds of listings."""

    shards: list[list[NewRow]] = field(default_factory=lambda: [[]])
    below: dict[str, int] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)

    def add(self, rows: list[NewRow]) -> None:
        known = {_identity(row.row) for row in self.shards[-1]}
        self.shards[-1] += [row for row in rows if _identity(row.row) not in known]

    def hide(self, listing: str, version: int) -> None:
        self.below[listing] = max(version, self.below.get(listing, 0))

    def visible(self) -> list[list[NewRow]]:
        return [
            [r for r in rows if r.row.version >= self.below.get(r.row.listing_id, 0)]
            for rows in self.shards
        ]


def _identity(row: Row) -> tuple[str, int, int]:
    return row.listing_id, row.version, row.photo_number


class Tier:
    """A tier and its model, updated step by step."""

    def __init__(self, folder: Path, kind: GrowingKind) -> None:
        self.folder, self.kind = folder, kind
        self.model = Model()
        self.served, self.hidden = ServedShards(), HiddenMap()
        self.open = open_shard(hidden=self.hidden, kind=kind)
        self.sealed: list[Shard] = []
        self._serve()

    def _serve(self) -> None:
        self.served.serve([*self.sealed, self.open])

    def step(self, what: str, listing: str, number: int) -> None:
        newest = self.model.newest.get(listing, 0)
        match what:
            case "list":
                self._add(listing, newest + 1, photos=number)
            case "update":
                self._add(listing, newest + 1, photos=number)
                assert self._visible_rows_of(listing), "at no moment is it missing"
                self._hide(listing, newest + 1)
            case "sell":
                self._hide(listing, newest + 1)
                # The sale is a separate event, so the listing comes back with a later version.
                self.model.newest[listing] = newest + 1
            case "hide again":
                self._hide(listing, max(0, newest - number))
            case "repeat":
                self._add(listing, max(1, newest - number), photos=1)
            case "seal":
                self._seal(listing, newest + number)
            case "search":
                self.check(k=number)

    def _add(self, listing: str, version: int, photos: int) -> None:
        rows = [new_row(listing, version, photo) for photo in range(photos)]
        self.open.add(rows, position=self.open.position + 1, bucket_start=BUCKET_START)
        self.model.add(rows)
        self.model.newest[listing] = max(version, self.model.newest.get(listing, 0))

    def _hide(self, listing: str, below: int) -> None:
        before = sum(map(len, self.model.visible()))
        self.model.hide(listing, below)
        self.hidden.raise_to(listing, below)
        assert hide(self.served, listing, below) == before - sum(map(len, self.model.visible()))

    def _seal(self, listing: str, below: int) -> None:
        """Swap the open shard for its sealed form; a listing is hidden during the swap."""
        if self.open.bucket_start is None:
            return
        manifest = write(self.open, self.folder / self.open.shard_id)
        sealed = SealedShard(manifest, self.folder / self.open.shard_id)
        joining = Snapshot([sealed])
        self.served.join(joining)
        joining.hide_all([HiddenEntry(*entry) for entry in self.hidden.entries()])
        self.hidden.raise_to(listing, below)
        hide(self.served, listing, below)
        self.model.hide(listing, below)
        self.model.newest[listing] = max(below - 1, self.model.newest.get(listing, 0))
        self.sealed.append(sealed)
        self.open = open_shard(from_offset=self.open.position, hidden=self.hidden, kind=self.kind)
        self.model.shards.append([])
        self._serve()
        self.served.leave(joining)

    def _visible_rows_of(self, listing: str) -> list[tuple[str, int, int]]:
        return [
            _identity(row)
            for shard in self.served.snapshot().shards
            for _, row in shard.visible_rows_of(listing)
        ]

    def check(self, k: int) -> None:
        visible = self.model.visible()
        for listing in LISTINGS:
            expected = [
                _identity(r.row) for rows in visible for r in rows if r.row.listing_id == listing
            ]
            assert self._visible_rows_of(listing) == expected
        for shard, rows, left in zip(
            self.served.snapshot().shards, self.model.shards, visible, strict=True
        ):
            assert (shard.rows, shard.hidden_rows) == (len(rows), len(rows) - len(left))
        queries = vectors(2, k)
        for query, hits in zip(
            queries,
            search_shards(
                self.served.snapshot().shards,
                queries,
                k,
                searched=self.served.snapshot().searched,
            ),
            strict=True,
        ):
            assert_right(hits, query, k, visible)


def assert_right(
    hits: list[FoundRow], query: np.ndarray, k: int, visible: list[list[NewRow]]
) -> None:
    """Compare the hits of one query with all visible rows of all shards."""
    scores: dict[tuple[str, int], float] = {}
    for row in (row for rows in visible for row in rows):
        version = (row.row.listing_id, row.row.version)
        scores[version] = max(scores.get(version, -2.0), float(row.vector @ query))
    names = [hit.row.listing_id for hit in hits]
    assert len(set(names)) == len(names) == min(k, len({name for name, _ in scores}))
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    for hit in hits:
        found = new_row(*_identity(hit.row))
        assert (hit.row.listing_id, hit.row.version) in scores, "it is hidden"
        assert hit.score == pytest.approx(float(found.vector @ query), abs=1e-5)
    if len(scores) == len({name for name, _ in scores}):
        # With one visible version per listing, there is only one correct result.
        nearest = sorted(scores.items(), key=lambda item: -item[1])[:k]
        assert [(hit.row.listing_id, hit.row.version) for hit in hits] == [n for n, _ in nearest]


@pytest.mark.parametrize(
    ("kind", "exact_rows"), [("usearch-hnsw", 4_000), ("ivf-sq4", 4_000), ("ivf-sq4", 0)]
)
def test_search_results_match_the_model(
    kind: str, exact_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack_module, "_EXACT_ROWS", exact_rows)

    @settings(deadline=None, max_examples=150)
    @given(STEPS)
    def match(steps: list[tuple[str, str, int]]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            tier = Tier(Path(folder), growing_kind(kind))
            for what, listing, number in steps:
                tier.step(what, listing, number)
            for k in (1, 3, 10):
                tier.check(k)

    match()


def hits_of(shards: list[Shard], query: np.ndarray, k: int = 10) -> list[tuple[str, int, int]]:
    (found,) = search_shards(shards, query[None, :], k)
    return [_identity(hit.row) for hit in found]


def at(listing: str, version: int, score: float) -> NewRow:
    """Return a row that has this score for the first unit vector."""
    vector = np.zeros(8, dtype=np.float32)
    vector[:2] = score, 1 - score
    return NewRow(Row(listing, version, 0, RowAttributes()), vector)


def test_a_newer_version_in_another_shard_is_shown_in_its_own_place() -> None:
    sealed = open_shard([at("lamp", 1, 1.0), at("mug", 1, 0.5)])
    opened = open_shard([at("lamp", 2, 0.25)], from_offset=2)
    query = np.eye(8, dtype=np.float32)[0]
    assert hits_of([sealed, opened], query) == [("mug", 1, 0), ("lamp", 2, 0)]
    assert hits_of([opened, sealed], query) == [("mug", 1, 0), ("lamp", 2, 0)]


def test_a_search_keeps_its_snapshot_of_shards() -> None:
    served = ServedShards()
    first, second = open_shard([new_row("lamp")]), open_shard([new_row("mug")], from_offset=1)
    served.serve([first])
    snapshot = served.snapshot().shards
    served.serve([second])
    assert snapshot == (first,)
    assert served.snapshot().shards == (second,)


def test_a_shard_that_left_before_it_was_served_gets_no_more_updates() -> None:
    served = ServedShards()
    shard = open_shard([new_row("lamp")])
    joining = Snapshot([shard])
    served.join(joining)
    served.leave(joining)
    assert hide(served, "lamp", 2) == 0
    assert shard.hidden_rows == 0


def test_rows_that_are_added_after_their_listing_was_hidden_are_hidden_from_the_start() -> None:
    hidden = HiddenMap()
    hidden.raise_to("lamp", 3)
    shard: OpenShard = open_shard(
        [new_row("lamp", version) for version in (1, 2, 3)], hidden=hidden
    )
    assert [row.version for _, row in shard.visible_rows_of("lamp")] == [3]
