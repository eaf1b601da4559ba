"""Reading the listings to publish from a folder of photos or a CSV file."""

from __future__ import annotations

import csv
import hashlib
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from shashin.client.listing_events import ListingAttributes
from shashin.codecs.limits import MAX_LISTING_ID_BYTES
from shashin.errors import UserError

PHOTO_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".jpe", ".jfif"}
)
MAX_PHOTOS = 20

_COLUMNS = frozenset(
    {"listing_id", "photos", "category", "brand", "price_minor", "currency", "version"}
)


@dataclass(frozen=True)
class SourceListing:
    """One listing as given by the user."""

    listing_id: str
    photos: tuple[str, ...]
    """Absolute file paths, or URIs."""
    attributes: ListingAttributes
    version: int | None
    """None: the time of publishing."""
    where: str
    """Folder, file or row, for errors."""


def read_source(path: Path) -> list[SourceListing]:
    """Return the listings of a folder or a CSV file.

    Raises:
        UserError: naming the invalid folder, file or row.
    """
    if path.is_dir():
        return read_folder(path)
    if not path.exists():
        raise UserError(f"{path} does not exist: expected a folder of photos or a CSV file")
    if path.suffix.lower() in PHOTO_SUFFIXES:
        return [_single_photo(path)]
    if path.suffix.lower() != ".csv":
        raise UserError(f"{path} is neither a folder, a photo ({_suffixes()}) nor a .csv file")
    return read_csv(path)


def read_folder(folder: Path) -> list[SourceListing]:
    """Return the listings of a folder: one per subfolder, and one per photo at the top level.

    Raises:
        UserError: if there are no photos, or a listing has more than 20.
    """
    listings = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            photos = tuple(str(photo.resolve()) for photo in _photos_in(entry))
            if photos:
                listings.append(
                    _checked(
                        SourceListing(entry.name, photos, ListingAttributes(), None, str(entry))
                    )
                )
        elif entry.suffix.lower() in PHOTO_SUFFIXES:
            listings.append(_single_photo(entry))
    if not listings:
        raise UserError(f"{folder} and its subfolders contain no photos ({_suffixes()})")
    _check_unique(listings)
    return listings


def _photos_in(folder: Path) -> list[Path]:
    return sorted(
        photo
        for photo in folder.iterdir()
        if photo.suffix.lower() in PHOTO_SUFFIXES and not photo.name.startswith(".")
    )


def _single_photo(photo: Path) -> SourceListing:
    source = SourceListing(
        photo.stem, (str(photo.resolve()),), ListingAttributes(), None, str(photo)
    )
    return _checked(source)


def read_csv(path: Path) -> list[SourceListing]:
    """Return the listings of a CSV file with a header: listing_id, photos and optional columns.

    Several photos of a listing are separated by semicolons; paths are relative to the file.

    Raises:
        UserError: naming the row and the problem.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, strict=True)
            _check_header(path, rows.fieldnames or ())
            listings = [
                _listing_of_row(row, f"{path}, row {rows.line_num}", path.parent) for row in rows
            ]
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start})"
        ) from None
    except csv.Error as error:
        raise UserError(f"{path} is not a CSV file: {error}") from None
    if not listings:
        raise UserError(f"{path} has a header but no rows")
    _check_unique(listings)
    return listings


def _check_header(path: Path, names: object) -> None:
    found = set(names) if isinstance(names, list | tuple) else set()
    if missing := {"listing_id", "photos"} - found:
        raise UserError(f"{path} has no column {' and no '.join(sorted(missing))} in its header")
    if unknown := found - _COLUMNS:
        raise UserError(
            f"{path} has unknown columns {sorted(map(str, unknown))}; expected {sorted(_COLUMNS)}"
        )


def _listing_of_row(row: Mapping[str, str | None], where: str, folder: Path) -> SourceListing:
    if None in row or None in row.values():
        raise UserError(f"{where} has a different number of fields than the header")
    text = {name: (value or "").strip() for name, value in row.items()}
    photos = tuple(
        _photo_of(name.strip(), where, folder) for name in text["photos"].split(";") if name.strip()
    )
    attributes = ListingAttributes(
        category=text.get("category", ""),
        brand=text.get("brand", ""),
        price_minor=_number(text, "price_minor", where, minimum=0) or 0,
        currency=_currency(text, where),
    )
    version = _number(text, "version", where, minimum=1)
    return _checked(SourceListing(text["listing_id"], photos, attributes, version, where))


def _photo_of(name: str, where: str, folder: Path) -> str:
    if urlsplit(name).scheme and "://" in name:
        return name
    path = folder / name
    if not path.is_file():
        raise UserError(f"{where} refers to a photo that does not exist: {path}")
    return str(path.resolve())


def _number(text: Mapping[str, str], column: str, where: str, *, minimum: int) -> int | None:
    value = text.get(column, "")
    if not value:
        return None
    if not value.isascii() or not value.isdigit() or not minimum <= int(value) < 2**63:
        raise UserError(
            f"{where} has {column} {value!r}; expected an integer of at least {minimum}"
        )
    return int(value)


def _currency(text: Mapping[str, str], where: str) -> str:
    currency = text.get("currency", "").upper()
    if currency and not (len(currency) == 3 and currency.isascii() and currency.isalpha()):
        raise UserError(f"{where} has currency {currency!r}; expected three letters such as JPY")
    if text.get("price_minor") and not currency:
        raise UserError(f"{where} has a price but no currency; expected three letters such as JPY")
    return currency


def _checked(listing: SourceListing) -> SourceListing:
    size = len(listing.listing_id.encode())
    if not 1 <= size <= MAX_LISTING_ID_BYTES:
        raise UserError(
            f"{listing.where} has a listing id of {size} bytes; expected 1 to "
            f"{MAX_LISTING_ID_BYTES}"
        )
    if not listing.photos:
        raise UserError(f"{listing.where} has no photos")
    if len(listing.photos) > MAX_PHOTOS:
        raise UserError(
            f"{listing.where} has {len(listing.photos)} photos; a listing has at most {MAX_PHOTOS}"
        )
    return listing


def _check_unique(listings: list[SourceListing]) -> None:
    seen: dict[str, str] = {}
    for listing in listings:
        if listing.listing_id in seen:
            raise UserError(
                f"listing {listing.listing_id!r} is given twice: {seen[listing.listing_id]} and "
                f"{listing.where}"
            )
        seen[listing.listing_id] = listing.where


def _suffixes() -> str:
    return " ".join(sorted(PHOTO_SUFFIXES))


def keep_photos(listing: SourceListing, photos_folder: Path) -> Iterator[str]:
    """Copy a listing's files to where the downloader can read them; yields every photo's URI.

    Copies are content-addressed, so publishing again copies nothing, and later changes to the
    user's own files have no effect.

    Raises:
        UserError: if a file cannot be copied.
    """
    for photo in listing.photos:
        if "://" in photo:
            yield photo
            continue
        source = Path(photo)
        try:
            with source.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            kept = photos_folder / digest[:2] / (digest + source.suffix.lower())
            if not kept.exists():
                kept.parent.mkdir(parents=True, exist_ok=True)
                scratch = kept.with_name(f".{uuid.uuid4().hex}")
                shutil.copyfile(source, scratch)
                scratch.replace(kept)
        except OSError as error:
            raise UserError(
                f"{listing.where}: {error.filename} cannot be copied ({error.strerror})"
            ) from None
        yield kept.absolute().as_uri()
