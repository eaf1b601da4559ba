"""The index over the listings of many shards finds what asking each of them would find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from shashin.shards.listing_index import ListingIndex

# With equal first 32 bits, some listings can only be told apart by the shard.
HASHES = [0, 1, 2**32, 2**32 + 1, 2**40, 2**63, 2**64 - 1]


@dataclass(frozen=True, eq=False)
class Member:
    listings: tuple[int, ...]

    @property
    def listing_hashes(self) -> npt.NDArray[np.uint64]:
        return np.array(sorted(self.listings), dtype=np.uint64)


MEMBERS = st.lists(
    st.lists(st.sampled_from(HASHES), max_size=9).map(lambda hashes: Member(tuple(hashes))),
    max_size=12,
)


def found(index: ListingIndex[Member], hashes: Sequence[int]) -> set[tuple[int, Member]]:
    matches = list(index.matches(np.array(hashes, dtype=np.uint64)))
    assert len(set(matches)) == len(matches), "none is found twice"
    return set(matches)


@given(MEMBERS, st.lists(st.sets(st.integers(0, 11)), max_size=8), st.integers(1, 10))
def test_after_any_swaps_every_member_with_a_listing_is_found_and_no_other_prefix(
    members: list[Member], swaps: list[set[int]], large_rows: int
) -> None:
    index = ListingIndex[Member](large_rows=large_rows)
    for swap in [*swaps, set(range(12))]:
        served = [member for number, member in enumerate(members) if number in swap]
        index = index.over(served)
        assert index.members == tuple(served)
        matches = found(index, HASHES)
        for position, wanted in enumerate(HASHES):
            having = {m for m in served if wanted in m.listings}
            alike = {m for m in served if any(h >> 32 == wanted >> 32 for h in m.listings)}
            assert having <= {m for at, m in matches if at == position} <= alike


def test_an_empty_index_and_an_empty_batch_find_nothing() -> None:
    index = ListingIndex[Member]()
    assert found(index, HASHES) == set()
    assert found(index.over([Member(())]), HASHES) == set()
    assert found(index.over([Member((1,))]), []) == set()


def test_runs_stay_few_while_shards_are_added_one_by_one() -> None:
    members: list[Member] = []
    index = ListingIndex[Member]()
    for number in range(200):
        members.append(Member(tuple(range(number << 40, (number << 40) + 3))))
        index = index.over(members)
        assert len(index._runs) <= 9
    assert found(index, [5 << 40, 77 << 40]) == {(0, members[5]), (1, members[77])}
