"""EXIF data that no camera wrote."""

from __future__ import annotations

import io
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shashin.errors import PhotoTooLarge
from shashin.photos.decode import decode_photo
from shashin.photos.exif import check_tags, orientation

FAR = 2**63 + 5


def big_tiff(order: str, directory: int) -> bytes:
    """Return the head of a BigTIFF, and where it says that its first directory is."""
    mark = {"<": b"II", ">": b"MM"}[order]
    return mark + struct.pack(f"{order}HHHQ", 43, 8, 0, directory)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("directory", [17, 2**62, FAR, 2**64 - 1])
def test_a_directory_beyond_the_data_is_none(order: str, directory: int) -> None:
    data = big_tiff(order, directory)
    check_tags(data)
    assert orientation({"exif": b"Exif\0\0" + data}) == 1


def test_a_photo_with_such_data_is_decoded() -> None:
    output = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(output, "JPEG", exif=b"Exif\0\0" + big_tiff("<", FAR))
    assert decode_photo(output.getvalue()).size == (40, 30)


@given(st.binary(max_size=200), st.sampled_from([b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b""]))
def test_any_data_is_read_or_refused(data: bytes, head: bytes) -> None:
    with suppress(PhotoTooLarge):
        check_tags(head + data)
    assert 1 <= orientation({"exif": head + data}) <= 8
