from __future__ import annotations

import base64
import io
import os
from pathlib import Path

import pytest
from PIL import Image

from shashin.cli.search.contact_sheet import SheetHit, sheet_hits, sheet_html, thumbnail_data_uri
from shashin.v1 import search_pb2


def photo(size: tuple[int, int] = (900, 600), mode: str = "RGB", kind: str = "PNG") -> bytes:
    made = io.BytesIO()
    Image.new(mode, size, 1).save(made, kind)
    return made.getvalue()


@pytest.mark.parametrize(("mode", "kind"), [("RGB", "PNG"), ("CMYK", "JPEG"), ("P", "GIF")])
def test_a_picture_is_embedded_small(mode: str, kind: str) -> None:
    uri = thumbnail_data_uri(photo(mode=mode, kind=kind))
    assert uri is not None
    head, _, data = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as small:
        assert small.size == (256, 171)


@pytest.mark.parametrize("data", [b"", b"not a photo", photo()[:200]])
def test_a_broken_picture_is_none(data: bytes) -> None:
    assert thumbnail_data_uri(data) is None


def test_the_page_needs_nothing_beside_itself_and_escapes_what_it_shows() -> None:
    page = sheet_html(
        "<b>.jpg",
        None,
        "note & more",
        [SheetHit("<script>", 0.5, 'a "b" · live tier', thumbnail_data_uri(photo()))],
    )
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "note &amp; more" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "photo not available on this machine" in page
    assert 'src="data:image/jpeg' in page


def test_a_file_name_that_is_not_utf8_is_shown_with_its_bytes_escaped() -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    page = sheet_html(name, thumbnail_data_uri(photo()), "", [])
    assert "caf\\udce9.jpg" in page
    assert page.encode("utf-8")


def test_a_hit_shows_the_photo_that_was_nearest(tmp_path: Path) -> None:
    near = tmp_path / "näh er.png"
    near.write_bytes(photo())
    hit = search_pb2.Hit(listing_id="a", version=3, photo_number=1, score=0.9, tier="live")
    uris = {("a", 3): ["file:///nowhere.jpg", near.as_uri()]}

    assert sheet_hits([hit], uris)[0].picture is not None
    hit.photo_number = 0
    assert sheet_hits([hit], uris)[0].picture is None
    hit.photo_number = 5
    assert sheet_hits([hit], uris)[0].picture is None
    assert sheet_hits([hit], {})[0].picture is None
    assert sheet_hits([hit], {("a", 3): ["https://example.com/a.jpg"] * 9})[0].picture is None
