"""A thumbnail's key follows from the hash of its photo, and nothing else can be asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.errors import UserError
from shashin.objectstore.keys import check_key
from shashin.photo_hash import hex_photo_hash
from shashin.thumbnails.keys import thumbnail_key


@given(st.integers(1, 2**64 - 1))
def test_a_key_is_below_the_first_two_digits(kept: int) -> None:
    name = hex_photo_hash(kept)
    assert check_key(thumbnail_key(name)) == ("thumbnails", name[:2], f"{name}.jpg")


@given(
    st.text(max_size=20).filter(
        lambda text: len(text) != 16 or not set(text) <= set("0123456789abcdef")
    )
    | st.sampled_from(["../../secret-key", "0123456789ABCDEF", "0123456789abcdef\n"])
)
def test_what_is_no_hash_has_no_key(text: str) -> None:
    with pytest.raises(UserError, match="expected 16 hexadecimal digits in lower case"):
        thumbnail_key(text)
