"""The hash of a photo is the same in rows, in the keys of thumbnails and in answers."""

from __future__ import annotations

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shashin.codecs.events import new_rows_of
from shashin.kafka.records import InRecord
from shashin.photo_hash import hex_photo_hash, is_hex_photo_hash, photo_hash
from shashin.v1 import events_pb2

RECORD = InRecord("vectors.embedded", 0, 0, 0, b"lamp", b"")


@given(st.binary(min_size=32, max_size=32))
def test_in_text_it_is_the_beginning_of_the_photos_sha256(digest: bytes) -> None:
    text = hex_photo_hash(photo_hash(digest))
    if any(digest[:8]):
        assert text == digest.hex()[:16]
        assert is_hex_photo_hash(text)
    else:
        assert not text, "nothing tells it from one that is not known"


@given(st.integers(1, 2**64 - 1))
def test_text_and_number_stand_for_each_other(kept: int) -> None:
    assert photo_hash(bytes.fromhex(hex_photo_hash(kept))) == kept


@given(st.binary(max_size=200))
def test_a_row_has_the_hash_of_its_photo(photo: bytes) -> None:
    digest = hashlib.sha256(photo).digest()
    vector = np.array([1, 0], dtype="<f2").tobytes()
    listing = events_pb2.EmbeddedListing(
        listing_id="lamp",
        version=1,
        vectors=[events_pb2.PhotoVector(vector=vector, content_sha256=digest)],
    )
    (new,) = new_rows_of(listing, 2, record=RECORD)
    assert hex_photo_hash(new.row.photo_hash) == digest.hex()[:16]


def test_a_photo_that_is_not_known_has_none() -> None:
    assert photo_hash(b"") == 0
    assert not hex_photo_hash(0)


@given(st.text(max_size=20))
def test_only_sixteen_digits_in_lower_case_are_one(text: str) -> None:
    digits = all(character in "0123456789abcdef" for character in text)
    assert is_hex_photo_hash(text) == (digits and len(text) == 16)
