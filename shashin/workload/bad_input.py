"""Invalid events and photos, as real catalogues have them: each must become a dead letter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from shashin.client.listing_events import LISTED, listing_event, record_of
from shashin.kafka.producer import OutRecord
from shashin.kafka.topics import LISTINGS_EVENTS


def bad_records(count: int, folder: Path, good_photo: Path) -> list[OutRecord]:
    """Return ``count`` records of ``listings.events``, of each kind in turn.

    ``good_photo`` is a valid JPEG from which broken ones are made in ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    whole = good_photo.read_bytes()
    files = {
        "whole.jpg": whole,
        "cut-short.jpg": whole[: len(whole) // 3],
        "empty.jpg": b"",
        "text.jpg": b"this is not a photo\n" * 50,
    }
    uris = {name: (folder / name).absolute().as_uri() for name in (*files, "missing.jpg")}
    for name, data in files.items():
        (folder / name).write_bytes(data)

    def listed(number: int, *names: str) -> OutRecord:
        photos = [uris[name] for name in names]
        return record_of(listing_event(f"bad-{number:04d}", 1, LISTED, photo_uris=photos))

    kinds: list[Callable[[int], OutRecord]] = [
        lambda n: listed(n, "missing.jpg"),
        lambda n: listed(n, "cut-short.jpg"),
        lambda n: listed(n, "empty.jpg"),
        lambda n: listed(n, "text.jpg"),
        # A broken photo does not affect the listing's other photos.
        lambda n: listed(n, "whole.jpg", "text.jpg", "missing.jpg"),
        lambda n: listed(n, *["whole.jpg"] * 21),
        listed,
        lambda n: OutRecord(LISTINGS_EVENTS, f"bad-{n:04d}".encode(), b"\xff\xfe not protobuf"),
        lambda _: record_of(listing_event("", 1, LISTED, photo_uris=[uris["whole.jpg"]])),
    ]
    return [kinds[number % len(kinds)](number) for number in range(count)]
