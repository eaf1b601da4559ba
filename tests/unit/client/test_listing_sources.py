from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from shashin.client.listing_sources import keep_photos, read_csv, read_folder, read_source
from shashin.errors import UserError


def write(path: Path, data: bytes = b"photo") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_a_subfolder_is_a_listing_and_a_photo_beside_it_is_one_of_its_own(tmp_path: Path) -> None:
    write(tmp_path / "sofa" / "2.JPG")
    write(tmp_path / "sofa" / "1.png")
    write(tmp_path / "sofa" / "notes.txt")
    write(tmp_path / "lamp.jpeg")
    write(tmp_path / "readme.md")
    write(tmp_path / ".cache" / "hidden.jpg")
    (tmp_path / "empty").mkdir()

    listings = read_folder(tmp_path)

    assert [(li.listing_id, [Path(p).name for p in li.photos]) for li in listings] == [
        ("lamp", ["lamp.jpeg"]),
        ("sofa", ["1.png", "2.JPG"]),
    ]


def test_one_photo_is_one_listing(tmp_path: Path) -> None:
    photo = write(tmp_path / "cup.webp")
    assert [(li.listing_id, li.photos) for li in read_source(photo)] == [("cup", (str(photo),))]


def test_a_folder_without_photos_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path} and its subfolders contain no photos"):
        read_source(tmp_path)


def test_two_listings_of_one_name_are_refused_with_both_places(tmp_path: Path) -> None:
    write(tmp_path / "sofa" / "1.png")
    write(tmp_path / "sofa.jpg")
    with pytest.raises(UserError, match=r"'sofa' is given twice: .*sofa and .*sofa\.jpg"):
        read_source(tmp_path)


def test_a_listing_with_more_than_20_photos_is_refused(tmp_path: Path) -> None:
    for number in range(21):
        write(tmp_path / "sofa" / f"{number}.jpg")
    with pytest.raises(UserError, match="has 21 photos; a listing has at most 20"):
        read_source(tmp_path)


def test_a_csv_row_is_a_listing_with_its_attributes(tmp_path: Path) -> None:
    photo = write(tmp_path / "pics" / "a b.jpg")
    csv = write(
        tmp_path / "list.csv",
        "\ufefflisting_id,photos,category,brand,price_minor,currency,version\n"
        '7,"pics/a b.jpg; s3://bucket/b.jpg",furniture,ACME,1200,jpy,3\n'
        "8,pics/a b.jpg,,,,,\n".encode(),
    )
    seven, eight = read_csv(csv)
    assert seven.photos == (str(photo), "s3://bucket/b.jpg")
    assert (seven.attributes.category, seven.attributes.brand) == ("furniture", "ACME")
    assert (seven.attributes.price_minor, seven.attributes.currency) == (1200, "JPY")
    assert seven.version == 3
    assert eight.version is None
    assert eight.attributes.currency == ""


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("listing_id\n7\n", "no column photos"),
        ("listing_id,photos,colour\n7,a.jpg,red\n", r"unknown columns \['colour'\]"),
        ("listing_id,photos\n7,a.jpg\n8,b.jpg\n", "row 3 refers to a photo that does not exist"),
        ("listing_id,photos\n7,\n", "row 2 has no photos"),
        ("listing_id,photos\n,a.jpg\n", "row 2 has a listing id of 0 bytes"),
        ("listing_id,photos\n7,a.jpg,more\n", "row 2 has a different number of fields"),
        ("listing_id,photos,version\n7,a.jpg\n", "row 2 has a different number of fields"),
        (
            "listing_id,photos,version\n7,a.jpg,0\n",
            "row 2 has version '0'; expected an integer of at least 1",
        ),
        ("listing_id,photos,price_minor,currency\n7,a.jpg,-5,JPY\n", "row 2 has price_minor '-5'"),
        ("listing_id,photos,price_minor,currency\n7,a.jpg,5,yen!\n", "currency 'YEN!'"),
        ("listing_id,photos,price_minor\n7,a.jpg,5\n", "a price but no currency"),
        ("listing_id,photos\n7,a.jpg\n7,a.jpg\n", "'7' is given twice: .*row 2 and .*row 3"),
        ("listing_id,photos\n", "has a header but no rows"),
    ],
)
def test_a_wrong_csv_is_refused_with_its_row(tmp_path: Path, rows: str, message: str) -> None:
    write(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=message):
        read_source(write(tmp_path / "list.csv", rows.encode()))


def test_a_csv_that_is_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not UTF-8 text"):
        read_source(write(tmp_path / "list.csv", b"listing_id,photos\n\xff\xfe,a\n"))


def test_a_path_that_is_nothing_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_source(tmp_path / "nowhere")
    with pytest.raises(UserError, match="neither a folder, a photo"):
        read_source(write(tmp_path / "notes.txt"))


def test_photos_are_copied_once_and_named_for_their_content(tmp_path: Path) -> None:
    write(tmp_path / "in" / "sofa" / "1.jpg", b"one")
    write(tmp_path / "in" / "sofa" / "2.jpg", b"one")
    (listing,) = read_source(tmp_path / "in")
    kept = tmp_path / "photos"

    first = list(keep_photos(listing, kept))
    second = list(keep_photos(listing, kept))

    assert first == second
    assert first[0] == first[1]
    copy = Path(unquote(urlsplit(first[0]).path))
    assert copy.is_relative_to(kept)
    assert copy.read_bytes() == b"one"
    assert len([path for path in kept.rglob("*") if path.is_file()]) == 1


def test_uris_are_published_as_they_are(tmp_path: Path) -> None:
    csv = write(tmp_path / "list.csv", b"listing_id,photos\n7,https://example.com/a.jpg\n")
    (listing,) = read_source(csv)
    assert list(keep_photos(listing, tmp_path)) == ["https://example.com/a.jpg"]
