"""Which partitions an indexer indexes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.indexer.partition_choice import PartitionChoice
from shashin.errors import UserError


def test_all_are_all() -> None:
    assert PartitionChoice.parse("all").of([0, 1, 2]) == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "partitions"),
    [
        ("0", [0]),
        ("0-3,7", [0, 1, 2, 3, 7]),
        ("7, 0-1 ,1", [0, 1, 7]),
        ("5-5", [5]),
        ("1/3", [1, 4, 7]),
        ("0/1", list(range(10))),
    ],
)
def test_partitions_ranges_and_shares_are_chosen(text: str, partitions: list[int]) -> None:
    assert PartitionChoice.parse(text).of(range(10)) == partitions


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), min_size=1, max_size=6))
def test_a_list_yields_its_partitions_sorted_and_once_each(
    parts: list[tuple[int, int]],
) -> None:
    text = ",".join(f"{begin}-{begin + more}" if more else str(begin) for begin, more in parts)
    named = {p for begin, more in parts for p in range(begin, begin + more + 1)}
    assert PartitionChoice.parse(text).of(range(60)) == sorted(named)


@given(st.integers(1, 40), st.data())
def test_the_shares_of_all_indexers_are_every_partition_once(
    partitions: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, partitions))
    shares = [PartitionChoice.parse(f"{n}/{count}").of(range(partitions)) for n in range(count)]
    assert sorted(p for share in shares for p in share) == list(range(partitions))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    "text", ["", ",", "a", "0-", "-3", "0,,1", "All", "1.5", "0-b", "1;2", "1/"]
)
def test_invalid_parts_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a partition, a range such as 0-3 or a share"):
        PartitionChoice.parse(text)


def test_of_partitions_that_are_added_a_list_chooses_none() -> None:
    assert PartitionChoice.parse("0-9").of_added([4, 5]) == []
    assert PartitionChoice.parse("all").of_added([5, 4]) == [4, 5]
    assert PartitionChoice.parse("1/2").of_added([4, 5]) == [5]


@pytest.mark.parametrize("text", ["3-1", "0-3,9-7", "1--3"])
def test_a_range_that_ends_before_it_begins_is_rejected(text: str) -> None:
    # If it were silently ignored, no indexer would index its partitions.
    with pytest.raises(ValueError, match="ends before it begins"):
        PartitionChoice.parse(text)


@pytest.mark.parametrize("text", ["3/3", "0/0", "7/2"])
def test_a_share_beyond_the_last_one_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="is not a share"):
        PartitionChoice.parse(text)


def test_partitions_that_do_not_exist_are_named() -> None:
    with pytest.raises(UserError, match=r"includes partitions \[7\], but .* has 4: .* 0 to 3"):
        PartitionChoice.parse("0,7").of(range(4))
    with pytest.raises(UserError, match=r"is 4/5, but .* has 4 partitions: run at most 4"):
        PartitionChoice.parse("4/5").of(range(4))
