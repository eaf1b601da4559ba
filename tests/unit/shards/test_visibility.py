"""The visibility rule, against a plain dictionary; order and repeats do not matter."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shashin.shards.visibility import HiddenMap

LISTINGS = st.sampled_from(["lamp", "chair", "mug", ""])
VERSIONS = st.integers(0, 6) | st.integers(2**63, 2**64 - 1)
RECORDS = st.lists(st.tuples(LISTINGS, VERSIONS), max_size=20)


@given(RECORDS, st.lists(st.tuples(LISTINGS, VERSIONS), max_size=10))
def test_a_row_is_visible_if_and_only_if_its_version_is_at_least_the_highest_bound(
    records: list[tuple[str, int]], rows: list[tuple[str, int]]
) -> None:
    hidden, below = HiddenMap(), dict[str, int]()
    for listing, version in records:
        changes = version > below.get(listing, 0)
        below[listing] = max(version, below.get(listing, 0))
        assert hidden.raise_to(listing, version) == changes
        assert hidden.below(listing) == below[listing]
    assert dict(hidden.entries()) == {name: bound for name, bound in below.items() if bound}
    assert len(hidden) == len(hidden.entries())
    for listing, version in rows:
        assert hidden.visible(listing, version) == (version >= below.get(listing, 0))


@given(RECORDS, st.data())
def test_order_and_repeats_do_not_matter(
    records: list[tuple[str, int]], data: st.DataObject
) -> None:
    replayed = data.draw(st.permutations([*records, *records]))
    maps = []
    for order in (records, replayed):
        hidden = HiddenMap()
        for listing, version in order:
            hidden.raise_to(listing, version)
        maps.append(sorted(hidden.entries()))
    assert maps[0] == maps[1]


def test_a_listing_that_was_never_hidden_is_visible_in_every_version() -> None:
    assert HiddenMap().visible("lamp", 0)
