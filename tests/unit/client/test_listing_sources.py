"""Planning what to publish: everything is checked first, and what is left out is named."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from shashin.client.listing_sources import (
    DEEPER_FOLDER,
    HIDDEN,
    NO_PHOTOS,
    OTHER_FILE,
    UNREAD_FORMAT,
    SourceListing,
    keep_photos,
    read_source,
)
from shashin.errors import UserError


def write(path: Path, data: bytes = b"photo") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def listings_in(path: Path) -> list[SourceListing]:
    return read_source(path).complete()


def test_a_subfolder_is_a_listing_and_a_photo_beside_it_is_one_of_its_own(tmp_path: Path) -> None:
    write(tmp_path / "sofa" / "2.JPG")
    write(tmp_path / "sofa" / "1.png")
    write(tmp_path / "sofa" / "notes.txt")
    write(tmp_path / "lamp.jpeg")
    write(tmp_path / "readme.md")
    write(tmp_path / ".cache" / "hidden.jpg")
    (tmp_path / "empty").mkdir()

    listings = listings_in(tmp_path)

    assert [(li.listing_id, [Path(p).name for p in li.photos]) for li in listings] == [
        ("lamp", ["lamp.jpeg"]),
        ("sofa", ["1.png", "2.JPG"]),
    ]


def test_one_photo_is_one_listing(tmp_path: Path) -> None:
    photo = write(tmp_path / "cup.webp")
    assert [(li.listing_id, li.photos) for li in listings_in(photo)] == [("cup", (str(photo),))]


def test_a_folder_without_photos_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path} and its subfolders contain no photos"):
        read_source(tmp_path)


def test_two_listings_of_one_name_are_refused_with_both_places(tmp_path: Path) -> None:
    write(tmp_path / "sofa" / "1.png")
    write(tmp_path / "sofa.jpg")
    with pytest.raises(UserError, match=r"'sofa' is given twice: .*sofa and .*sofa\.jpg"):
        listings_in(tmp_path)


def test_a_listing_with_more_than_20_photos_is_refused(tmp_path: Path) -> None:
    for number in range(21):
        write(tmp_path / "sofa" / f"{number}.jpg")
    with pytest.raises(UserError, match="has 21 photos; a listing has at most 20"):
        listings_in(tmp_path)


def test_a_csv_row_is_a_listing_with_its_attributes(tmp_path: Path) -> None:
    photo = write(tmp_path / "pics" / "a b.jpg")
    csv = write(
        tmp_path / "list.csv",
        "\ufefflisting_id,photos,category,brand,price_minor,currency,version\n"
        '7,"pics/a b.jpg; s3://bucket/b.jpg",furniture,ACME,1200,jpy,3\n'
        "8,pics/a b.jpg,,,,,\n".encode(),
    )
    seven, eight = listings_in(csv)
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
        ("listing_id;photos;category\n7;a.jpg;x\n", "separated by semicolons; expected commas"),
        ("listing_id\tphotos\n7\ta.jpg\n", "separated by tabs; expected commas"),
        ("Listing_ID, photos\n7,a.jpg\n", "found 'Listing_ID', ' photos'"),
        ("listing_id,photos,photos\n7,a.jpg,a.jpg\n", "names the column photos more than once"),
        ('listing_id,photos\n7,"a.jpg\n', "is not a CSV file: line 2: unexpected end of data"),
        ("listing_id,photos\n7,http://[::1/a.jpg\n", r"row 2 .*http://\[::1/a.jpg', .* malformed"),
        ("listing_id,photos\n7,a\0.jpg\n", "row 2 refers to a photo that "),
        (
            f"listing_id,photos,price_minor,currency\n7,a.jpg,{'9' * 5000},JPY\n",
            r"row 2 has price_minor '9{20}'... \(5000 characters\)",
        ),
        (
            "listing_id,photos,price_minor,currency\n7,a.jpg,9223372036854775808,JPY\n",
            "row 2 has price_minor 9223372036854775808; expected 0 to",
        ),
        (
            "listing_id,photos,version\n7,a.jpg,18446744073709551615\n",
            "row 2 has version '18446744073709551615'; expected a whole number of at most 19 digits",
        ),
        (f"listing_id,photos,brand\n7,a.jpg,{'b' * 257}\n", "row 2 has a brand of 257 bytes"),
        ("listing_id,photos,colour\n7,a.jpg,red\n", r"unknown columns \['colour'\]"),
        ("listing_id,photos\n7,a.jpg\n8,b.jpg\n", "row 3 refers to a photo that does not exist"),
        ("listing_id,photos\n7,\n", "row 2 has no photos"),
        ("listing_id,photos\n,a.jpg\n", "row 2 has a listing id of 0 bytes"),
        ("listing_id,photos\n7,a.jpg,more\n", "row 2 has a different number of fields"),
        ("listing_id,photos,version\n7,a.jpg\n", "row 2 has a different number of fields"),
        (
            "listing_id,photos,version\n7,a.jpg,0\n",
            "row 2 has version 0; expected 1 to 9223372036854775806",
        ),
        ("listing_id,photos,price_minor,currency\n7,a.jpg,-5,JPY\n", "row 2 has price_minor '-5'"),
        ("listing_id,photos,price_minor,currency\n7,a.jpg,5,yen!\n", "currency 'YEN!'"),
        ("listing_id,photos,price_minor\n7,a.jpg,5\n", "row 2 has a price without a currency"),
        ("listing_id,photos\n7,a.jpg\n7,a.jpg\n", "'7' is given twice: .*row 2 and .*row 3"),
        ("listing_id,photos\n", "has a header but no rows"),
    ],
)
def test_a_wrong_csv_is_refused_with_its_row(tmp_path: Path, rows: str, message: str) -> None:
    write(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=message):
        listings_in(write(tmp_path / "list.csv", rows.encode()))


def test_rows_without_any_field_are_blank_lines(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg")
    csv = write(tmp_path / "list.csv", b"listing_id,photos\n7,a.jpg\n\n,\n")
    assert [li.listing_id for li in listings_in(csv)] == ["7"]


def test_every_wrong_row_is_named_and_the_right_ones_are_kept(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg")
    rows = "1,a.jpg\n2,b.jpg\n3,a.jpg\n3,a.jpg\n4,a.jpg,\n5,a.jpg\n"
    plan = read_source(write(tmp_path / "list.csv", b"listing_id,photos\n" + rows.encode()))
    assert [li.listing_id for li in plan.listings] == ["1", "5"]
    wrong = ["row 3 refers to", "row 6 has a different number", "listing '3' is given twice"]
    assert len(plan.invalid) == len(wrong)
    assert all(words in line for words, line in zip(wrong, plan.invalid, strict=True))


def test_what_is_left_out_of_a_folder_is_named_with_its_reason(tmp_path: Path) -> None:
    write(tmp_path / "sofa" / "1.jpg")
    write(tmp_path / "sofa" / "2.JXL")
    write(tmp_path / "sofa" / "notes.txt")
    write(tmp_path / "sofa" / "details" / "far" / "1.jpg")
    write(tmp_path / "2024" / "chair" / "1.jpg")
    write(tmp_path / "2024" / "table" / "1.jp2")
    write(tmp_path / "phone" / "1.dng")
    write(tmp_path / "single.jxl")
    write(tmp_path / "Thumbs.db")
    write(tmp_path / ".git" / "a.jpg")
    (tmp_path / "empty").mkdir()
    plan = read_source(tmp_path)
    assert [(li.listing_id, len(li.photos)) for li in plan.listings] == [("sofa", 1)]
    left_out = {(str(Path(lo.path).relative_to(tmp_path)), lo.why) for lo in plan.left_out}
    assert left_out == {
        ("sofa/2.JXL", UNREAD_FORMAT),
        ("sofa/notes.txt", OTHER_FILE),
        ("sofa/details", DEEPER_FOLDER),
        ("2024/chair", DEEPER_FOLDER),
        ("2024/table", DEEPER_FOLDER),
        ("phone/1.dng", UNREAD_FORMAT),
        ("single.jxl", UNREAD_FORMAT),
        ("Thumbs.db", OTHER_FILE),
        (".git", HIDDEN),
        ("empty", NO_PHOTOS),
    }
    lines = {line.partition(":")[0]: line for line in plan.left_out_lines()}
    assert f"{tmp_path / 'sofa' / '2.JXL'}" in lines[UNREAD_FORMAT]
    assert f"{DEEPER_FOLDER}: 3 (" in "\n".join(lines.values())


def test_a_folder_with_only_unread_formats_says_so(tmp_path: Path) -> None:
    write(tmp_path / "phone" / "a.jxl")
    with pytest.raises(
        UserError, match=r"contain no photos .*left out: photos in a format .*: 1 \("
    ):
        read_source(tmp_path)
    with pytest.raises(UserError, match="a format that is not read: convert it"):
        read_source(tmp_path / "phone" / "a.jxl")


@pytest.mark.parametrize("name", ["a.heic", "a.HEIF", "a.hif", "a.avif"])
def test_photos_as_phones_write_them_are_published(tmp_path: Path, name: str) -> None:
    write(tmp_path / "phone" / name)
    (listing,) = read_source(tmp_path).listings
    assert listing.photos == (str(tmp_path / "phone" / name),)


def test_a_photo_that_the_downloader_would_not_read_is_found_before_it_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.jpg", bytes(2000))
    monkeypatch.setenv("SHASHIN_MAX_BYTES", "2000")
    assert len(read_source(tmp_path).listings) == 1
    monkeypatch.setenv("SHASHIN_MAX_BYTES", "1999")
    assert "has 2000 bytes; at most 1999 are allowed" in read_source(tmp_path).invalid[0]


def test_what_cannot_be_read_is_found_before_anything_is_published(tmp_path: Path) -> None:
    write(tmp_path / "ok.jpg")
    write(tmp_path / os.fsdecode(b"caf\xe9.jpg"))
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "p.jpg")
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / "1.jpg").symlink_to(tmp_path / "loop" / "1.jpg")
    plan = read_source(tmp_path)
    assert [li.listing_id for li in plan.listings] == ["ok"]
    found = {Path(line.split(" ")[0]).name: line for line in plan.invalid}
    assert "has a name that is not UTF-8" in found["caf\udce9.jpg"]
    assert "is a link to nothing" in found["gone.jpg"]
    assert "has p.jpg, which cannot be read (not a regular file)" in found["pipe"]
    assert "has 1.jpg, which " in found["loop"]
    with pytest.raises(UserError, match="3 more problems"):
        plan.complete()


def test_a_csv_file_that_is_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "list.csv")
    with pytest.raises(UserError, match=r"list\.csv cannot be read: not a regular file"):
        read_source(tmp_path / "list.csv")


def test_a_copy_that_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (listing,) = listings_in(write(tmp_path / "sofa.jpg"))

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(UserError, match=r"sofa\.jpg cannot be copied \(no space left"):
        list(keep_photos(listing, tmp_path / "kept"))
    assert not [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]


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
    (listing,) = listings_in(tmp_path / "in")
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
    (listing,) = listings_in(csv)
    assert list(keep_photos(listing, tmp_path)) == ["https://example.com/a.jpg"]
