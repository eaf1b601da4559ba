"""Columns of numbers in messages."""

from __future__ import annotations

import sys
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.codecs.columns import FLOAT32, UINT32, UINT64, packed, unpacked


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
