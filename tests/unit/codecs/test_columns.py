"""Columns of numbers in messages."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.codecs import columns
from shashin.codecs.columns import (
    FLOAT32,
    UINT32,
    UINT64,
    are_finite,
    ends_of,
    packed,
    unpacked,
)


@given(st.lists(st.integers(0, 2**64 - 1)))
def test_numbers_come_back_as_they_were(numbers: list[int]) -> None:
    assert unpacked(UINT64, packed(array(UINT64, numbers))).tolist() == numbers


@pytest.mark.parametrize("order", ["little", "big"])
def test_columns_are_little_endian(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # An array of a machine of the other byte order has its bytes the other way round.
    own = array(UINT32, [1, 258])
    if order != sys.byteorder:
        own.byteswap()
    monkeypatch.setattr(sys, "byteorder", order)
    assert packed(own) == b"\1\0\0\0\2\1\0\0"
    assert unpacked(UINT32, packed(own)) == own


def test_a_column_that_ends_within_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of item size"):
        unpacked(FLOAT32, b"abcde")


@pytest.fixture(params=[0, 4096], ids=["many", "few"])
def many(request: pytest.FixtureRequest) -> Iterator[None]:
    """From how many numbers on numpy is used."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "_MANY", request.param)
        yield


@pytest.mark.usefixtures("many")
@given(st.lists(st.integers(0, 2**32 - 1)))
def test_texts_begin_where_those_before_end(lengths: list[int]) -> None:
    ends = ends_of(array(UINT32, lengths))
    assert list(ends) == [sum(lengths[:number]) for number in range(len(lengths) + 1)]


@pytest.mark.usefixtures("many")
@given(st.lists(st.floats(width=32)))
def test_a_column_is_finite_if_all_of_its_numbers_are(numbers: list[float]) -> None:
    assert are_finite(array(FLOAT32, numbers)) == all(map(math.isfinite, numbers))


@pytest.mark.usefixtures("many")
def test_the_largest_numbers_together_are_finite_too() -> None:
    assert are_finite(array(FLOAT32, [3.4e38] * 1000))
