"""Folders of products: what counts as a photo, which products are held out, and photos of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from shashin.errors import PhotoFolderError
from shashin.model.photo_folders import ProductPhotos, is_held_out, open_photo, read_products
from shashin.photos import thumbnail_image


def save(path: Path, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)
    return path


def test_a_folder_is_a_product_and_its_files_are_its_photos(tmp_path: Path) -> None:
    shelf, query = save(tmp_path / "milk/shelf-1.jpg"), save(tmp_path / "milk/query-1.JPG")
    other = save(tmp_path / "juice/a.png")
    (tmp_path / "juice/notes.txt").write_text("no photo")
    (tmp_path / "empty").mkdir()
    save(tmp_path / "loose.jpg")
    assert read_products([tmp_path]) == [
        ProductPhotos("juice", (other,)),
        ProductPhotos("milk", (shelf,), (query,)),
    ]


def test_a_folder_without_products_is_refused_with_what_is_expected(tmp_path: Path) -> None:
    save(tmp_path / "loose.jpg")
    with pytest.raises(PhotoFolderError, match="has no products: expected a folder for each one"):
        read_products([tmp_path])
    with pytest.raises(PhotoFolderError, match="cannot be read: No such file"):
        read_products([tmp_path / "missing"])


@given(st.text(min_size=1, max_size=30), st.integers(1, 9))
def test_a_product_is_held_out_by_its_name_alone(name: str, one_in: int) -> None:
    product = ProductPhotos(name, (Path("a"),))
    moved = ProductPhotos(name, (Path("b"), Path("c")), (Path("d"),))
    assert is_held_out(product, one_in) == is_held_out(moved, one_in)
    assert is_held_out(product, 1)
    assert not is_held_out(product, 0)


@given(st.integers(2, 6))
def test_about_one_product_in_so_many_is_held_out(one_in: int) -> None:
    products = [ProductPhotos(f"product-{number}", ()) for number in range(3000)]
    share = sum(is_held_out(product, one_in) for product in products) / len(products)
    assert share == pytest.approx(1 / one_in, abs=0.05)


@pytest.mark.parametrize(
    ("name", "mode", "size"),
    [
        ("grey.png", "L", (300, 200)),
        ("palette.gif", "P", (20, 900)),
        ("alpha.webp", "RGBA", (64, 64)),
        ("print.jpg", "CMYK", (500, 400)),
        ("one.bmp", "1", (33, 17)),
        ("large.tiff", "RGB", (1200, 800)),
    ],
)
def test_photos_of_any_format_and_size_are_upright_rgb(
    tmp_path: Path, name: str, mode: str, size: tuple[int, int]
) -> None:
    photo = open_photo(save(tmp_path / name, size, mode))
    assert photo.mode == "RGB"
    assert min(photo.size) <= 256


def test_a_photo_is_seen_as_services_see_it(tmp_path: Path) -> None:
    photo = Image.new("RGB", (60, 30), "white")
    photo.paste("black", (0, 0, 30, 30))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # turn it clockwise to see it upright
    path = tmp_path / "turned.png"
    photo.save(path, exif=exif)
    seen = open_photo(path)
    assert seen.size == (30, 60)
    assert np.array_equal(np.asarray(seen), np.asarray(thumbnail_image(path.read_bytes())))
    assert np.asarray(seen)[:30].max() < np.asarray(seen)[30:].min(), "its dark half is above"


def test_a_broken_photo_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    path.write_bytes(save(tmp_path / "whole.jpg", (400, 300)).read_bytes()[:200])
    with pytest.raises(PhotoFolderError, match=r"cut\.jpg cannot be used"):
        open_photo(path)
