"""Reading the listings to publish from a folder of photos or a CSV file.

Everything is read and checked before anything is published: what is left out and what cannot be
published is part of the plan.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shashin.client.listing_events import ListingAttributes
from shashin.codecs.limits import MAX_PHOTO_BYTES
from shashin.codecs.listing_rules import (
    MAX_PHOTOS,
    attributes_problem,
    listing_id_problem,
    uri_form_problem,
    uri_size_problem,
    version_problem,
)
from shashin.errors import UserError
from shashin.photo_names import PHOTO_SUFFIXES
from shashin.runtime.files import open_regular

UNREAD_PHOTO_SUFFIXES = frozenset(
    {".jxl", ".jp2", ".svg", ".psd", ".ico", ".ppm"}
    | {".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2"}
)
"""Photos by their names, in formats that the services do not read."""

UNREAD_FORMAT = "photos in a format that is not read (convert them to JPEG)"
DEEPER_FOLDER = "photos in deeper folders (publish the folder around them: each is a listing then)"
NO_PHOTOS = "folders without photos"
OTHER_FILE = "files that are not photos"
HIDDEN = "hidden files and folders"

_COLUMNS = frozenset(
    {"listing_id", "photos", "category", "brand", "price_minor", "currency", "version"}
)
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_MAX_DIGITS = 19
"""Of an int64; Python refuses to convert thousands of digits."""


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


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that is not published, and does not have to be."""

    path: str
    why: str
    """The kind of thing that it is, in the plural."""


@dataclass
class SourcePlan:
    """What a source contains: the listings to publish, what is left out, and what is wrong."""

    listings: list[SourceListing] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)
    """One message for each listing that cannot be published."""

    def add(self, listing: SourceListing, problem: str | None = None) -> None:
        """Add a listing, or what is wrong with it."""
        problem = problem or _problem_of(listing)
        if problem is None:
            self.listings.append(listing)
        else:
            self.invalid.append(f"{listing.where} {problem}")

    def leave_out(self, path: Path, why: str) -> None:
        """Leave a file or folder out."""
        self.left_out.append(LeftOut(str(path), why))

    def left_out_lines(self) -> list[str]:
        """Return what is left out in one line for each kind, with the number and some names."""
        lines = []
        for why, count in Counter(left_out.why for left_out in self.left_out).items():
            paths = [left_out.path for left_out in self.left_out if left_out.why == why]
            more = f" and {count - 3} more" if count > 3 else ""
            lines.append(f"{why}: {count} ({', '.join(paths[:3])}{more})")
        return lines

    def complete(self) -> list[SourceListing]:
        """Return the listings.

        Raises:
            UserError: if one of them cannot be published.
        """
        if self.invalid:
            more = f" (and {len(self.invalid) - 1} more problems)" if self.invalid[1:] else ""
            raise UserError(f"{self.invalid[0]}{more}")
        return self.listings


def read_source(path: Path) -> SourcePlan:
    """Plan the listings of a folder, a photo or a CSV file.

    Raises:
        UserError: if it is none of them, or has nothing to publish.
    """
    if path.is_dir():
        plan = read_folder(path)
    elif not path.exists():
        raise UserError(f"{path} does not exist: expected a folder of photos or a CSV file")
    elif path.suffix.lower() in PHOTO_SUFFIXES:
        plan = SourcePlan()
        _add_photo(path, plan)
    elif path.suffix.lower() in UNREAD_PHOTO_SUFFIXES:
        raise UserError(f"{path} has a format that is not read: convert it to one of {_suffixes()}")
    elif path.suffix.lower() == ".csv":
        plan = read_csv(path)
    else:
        raise UserError(f"{path} is neither a folder, a photo ({_suffixes()}) nor a .csv file")
    _check_unique(plan)
    return plan


def read_folder(folder: Path) -> SourcePlan:
    """Plan the listings of a folder: one per subfolder, and one per photo at the top level.

    Raises:
        UserError: if there are no photos.
    """
    plan = SourcePlan()
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            plan.leave_out(entry, HIDDEN)
        elif entry.is_dir():
            _add_subfolder(entry, plan)
        elif entry.suffix.lower() in PHOTO_SUFFIXES:
            _add_photo(entry, plan)
        else:
            _leave_out_file(entry, plan)
    if not plan.listings and not plan.invalid:
        found = "; left out: ".join(["", *plan.left_out_lines()])
        raise UserError(f"{folder} and its subfolders contain no photos ({_suffixes()}){found}")
    return plan


def _add_photo(photo: Path, plan: SourcePlan) -> None:
    listing = SourceListing(
        photo.stem, (str(photo.absolute()),), ListingAttributes(), None, str(photo)
    )
    plan.add(listing, _file_problem(photo))


def _add_subfolder(folder: Path, plan: SourcePlan) -> None:
    left_out_before = len(plan.left_out)
    photos: list[Path] = []
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        plan.invalid.append(f"{folder} cannot be read ({error.strerror})")
        return
    for entry in entries:
        if entry.name.startswith("."):
            plan.leave_out(entry, HIDDEN)
        elif entry.is_dir():
            if _contains_photos(entry):
                plan.leave_out(entry, DEEPER_FOLDER)
        elif entry.suffix.lower() in PHOTO_SUFFIXES:
            photos.append(entry)
        else:
            _leave_out_file(entry, plan)
    if photos:
        problems = (f"has {p.name}, which {bad}" for p in photos if (bad := _file_problem(p)))
        paths = tuple(str(photo.absolute()) for photo in photos)
        listing = SourceListing(folder.name, paths, ListingAttributes(), None, str(folder))
        plan.add(listing, next(problems, None))
    elif len(plan.left_out) == left_out_before:
        plan.leave_out(folder, NO_PHOTOS)


def _leave_out_file(path: Path, plan: SourcePlan) -> None:
    is_photo = path.suffix.lower() in UNREAD_PHOTO_SUFFIXES
    plan.leave_out(path, UNREAD_FORMAT if is_photo else OTHER_FILE)


def _contains_photos(folder: Path) -> bool:
    known = PHOTO_SUFFIXES | UNREAD_PHOTO_SUFFIXES
    return any(
        Path(name).suffix.lower() in known for _, _, names in os.walk(folder) for name in names
    )


def _file_problem(path: Path) -> str | None:
    """Return why a photo cannot be used; it is opened, since nothing else tells for sure."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return "does not exist" if not path.is_symlink() else "is a link to nothing"
    except OSError as error:
        return f"cannot be read ({(error.strerror or 'unknown error').lower()})"
    except ValueError:
        return "is not the name of a file"
    if size > (limit := max_photo_bytes()):
        return f"has {size} bytes; at most {limit} are allowed"
    return None


def max_photo_bytes() -> int:
    """Return the size up to which the downloader reads a photo, as it is set here."""
    given = os.environ.get("SHASHIN_MAX_BYTES", "")
    return int(given) if given.isascii() and given.isdigit() else MAX_PHOTO_BYTES


def read_csv(path: Path) -> SourcePlan:
    """Plan the listings of a CSV file with a header: listing_id, photos and optional columns.

    Several photos of a listing are separated by semicolons; paths are relative to the file.

    Raises:
        UserError: if the file is not such a CSV file; a wrong row is part of the plan.
    """
    plan = SourcePlan()
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            _check_header(path, rows.fieldnames or ())
            for row in rows:
                if any(row.values()):
                    _add_row(row, f"{path}, row {rows.line_num}", path.parent, plan)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8"
        ) from None
    except csv.Error as error:
        raise UserError(f"{path} is not a CSV file: line {rows.reader.line_num}: {error}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {(error.strerror or '').lower()}") from None
    if not plan.listings and not plan.invalid:
        raise UserError(f"{path} has a header but no rows")
    return plan


def _check_header(path: Path, names: Sequence[str]) -> None:
    found = set(names)
    if missing := {"listing_id", "photos"} - found:
        raise UserError(
            f"{path} has no column {' and no '.join(sorted(missing))} in its header"
            f"{_separator_hint(names)}"
        )
    if unknown := found - _COLUMNS:
        raise UserError(
            f"{path} has unknown columns {sorted(unknown)}; expected {sorted(_COLUMNS)}"
        )
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise UserError(
            f"{path} names the column {' and the column '.join(twice)} more than once: several "
            "photos of a listing go into one field, separated by semicolons"
        )


def _separator_hint(names: Sequence[str]) -> str:
    if len(names) == 1:
        for separator, plural in _SEPARATORS.items():
            if "listing_id" in (name.strip(' "') for name in names[0].split(separator)):
                return f": its columns are separated by {plural}; expected commas"
    return f": found {', '.join(map(repr, names)) or 'none'}"


def _add_row(
    row: Mapping[str | None, str | None], where: str, folder: Path, plan: SourcePlan
) -> None:
    if None in row or None in row.values():
        plan.invalid.append(f"{where} has a different number of fields than the header")
        return
    text = {str(name): (value or "").strip() for name, value in row.items()}
    names = [name.strip() for name in text["photos"].split(";") if name.strip()]
    numbers = {column: _number(text.get(column, "")) for column in ("price_minor", "version")}
    photos = tuple(name if "://" in name else str((folder / name).absolute()) for name in names)
    attributes = ListingAttributes(
        category=text.get("category", ""),
        brand=text.get("brand", ""),
        price_minor=numbers["price_minor"] or 0,
        currency=text.get("currency", "").upper(),
    )
    listing = SourceListing(text["listing_id"], photos, attributes, numbers["version"], where)
    wrong_number = next(
        (
            f"has {column} {_shortened(text[column])}; expected a whole number of at most "
            f"{_MAX_DIGITS} digits"
            for column, number in numbers.items()
            if number is None and text.get(column)
        ),
        None,
    )
    wrong_photo = next(
        (
            f"refers to a photo that {problem}: {folder / name}"
            for name in names
            if "://" not in name and (problem := _file_problem(folder / name))
        ),
        None,
    )
    plan.add(listing, wrong_number or wrong_photo)


def _number(text: str) -> int | None:
    """Return a whole number; None if there is none, or too long a one."""
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        return None
    return int(text)


def _shortened(text: str) -> str:
    return repr(text) if len(text) <= 40 else f"{text[:20]!r}... ({len(text)} characters)"


def _problem_of(listing: SourceListing) -> str | None:
    """Return what the services would refuse in an event of the listing."""
    try:
        if problem := listing_id_problem(listing.listing_id):
            return f"has a listing id of {problem}"
    except UnicodeEncodeError:
        return "has a name that is not UTF-8, and a listing id has to be: rename it"
    if listing.version is not None and (problem := version_problem(listing.version)):
        return f"has version {problem}"
    a = listing.attributes
    return _photos_problem(listing.photos) or attributes_problem(
        a.category, a.brand, a.price_minor, a.currency
    )


def _photos_problem(photos: Sequence[str]) -> str | None:
    if not photos:
        return "has no photos"
    if len(photos) > MAX_PHOTOS:
        return f"has {len(photos)} photos; a listing has at most {MAX_PHOTOS}"
    for uri in photos:
        if "://" not in uri:
            continue
        if problem := uri_size_problem(uri):
            return f"has a photo with a URI of {problem}"
        if problem := uri_form_problem(uri):
            return f"has a photo with the URI {uri!r}, which {problem}"
    return None


def _check_unique(plan: SourcePlan) -> None:
    """Make listings of the same id invalid: which one is meant is not known."""
    places: dict[str, list[str]] = {}
    for listing in plan.listings:
        places.setdefault(listing.listing_id, []).append(listing.where)
    for listing_id, where in places.items():
        if len(where) > 1:
            times = "twice" if len(where) == 2 else f"{len(where)} times"
            plan.invalid.append(
                f"listing {listing_id!r} is given {times}: {' and '.join(where[:3])}"
            )
    plan.listings = [li for li in plan.listings if len(places[li.listing_id]) == 1]


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
        try:
            yield _kept(Path(photo), photos_folder).absolute().as_uri()
        except OSError as error:
            name = error.filename or photo
            raise UserError(
                f"{listing.where}: {name} cannot be copied ({(error.strerror or '').lower()})"
            ) from None


def _kept(source: Path, photos_folder: Path) -> Path:
    with open_regular(source) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        kept = photos_folder / digest[:2] / (digest + source.suffix.lower())
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            scratch = kept.with_name(f".{uuid.uuid4().hex}")
            try:
                file.seek(0)
                with scratch.open("wb") as copy:
                    shutil.copyfileobj(file, copy)
                scratch.replace(kept)
            finally:
                scratch.unlink(missing_ok=True)
    return kept
