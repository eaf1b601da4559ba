"""A contact sheet: the query and its hits in one HTML file with embedded images."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from shashin.client.topic_tails import topic_tails
from shashin.codecs.limits import MAX_PHOTO_BYTES
from shashin.errors import PhotoError
from shashin.kafka.dlq_entries import message_of
from shashin.kafka.topics import LISTINGS_EVENTS
from shashin.photos import thumbnail_image
from shashin.printable import printable
from shashin.runtime.files import open_regular, path_of_uri
from shashin.v1 import events_pb2, search_pb2

_SIDE = 256
"""Longest side of an image on the sheet, in pixels."""

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem; }
h1 { font-size: 1.2rem; margin: 0 0 .3rem; }
.note { opacity: .75; margin: 0 0 1.5rem; }
.query { margin-bottom: 2rem; }
.query img { border: 3px solid #2a6fdb; }
ol { list-style: none; display: grid; gap: 1.2rem; padding: 0;
     grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); }
img, .none { width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 8px;
             background: #8882; }
.query img, .query .none { width: 256px; }
.none { display: grid; place-items: center; text-align: center; opacity: .75; }
.id { font-weight: 600; overflow-wrap: anywhere; }
.score { float: right; font-variant-numeric: tabular-nums; opacity: .75; }
"""


@dataclass(frozen=True)
class SheetHit:
    """One hit on the sheet."""

    listing_id: str
    score: float
    details: str
    picture: str | None
    """A ``data:`` URI; None if the photo is not available."""


def thumbnail_data_uri(photo: bytes) -> str | None:
    """Return a small JPEG of the photo as a ``data:`` URI; None when it cannot be decoded."""
    try:
        image = thumbnail_image(photo)
    except PhotoError:
        return None
    image.thumbnail((_SIDE, _SIDE))
    small = io.BytesIO()
    image.save(small, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(small.getvalue()).decode()


def sheet_html(query: str, query_picture: str | None, note: str, hits: Sequence[SheetHit]) -> str:
    """Return the page; ``query`` is a description of the query, often a file's name.

    The page can always be written as UTF-8: a name that is not is shown with its bytes escaped.
    """
    query = printable(query)
    items = "\n".join(
        f'<li>{_picture(hit.picture, hit.listing_id)}<span class="score">{hit.score:.3f}</span>'
        f'<div class="id">{escape(hit.listing_id)}</div><div>{escape(hit.details)}</div></li>'
        for hit in hits
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f"<title>{escape(query)} - Shashin</title>\n<style>{_STYLE}</style></head><body>\n"
        f'<div class="query"><h1>{escape(query)}</h1><p class="note">{escape(note)}</p>'
        f"{_picture(query_picture, query)}</div>\n<ol>\n{items}\n</ol>\n</body></html>\n"
    )


def _picture(picture: str | None, name: str) -> str:
    if picture is None:
        return '<div class="none">photo not available on this machine</div>'
    return f'<img alt="{escape(name)}" src="{picture}">'


def details_of(hit: search_pb2.Hit) -> str:
    """Return a hit's attributes and tier in one line."""
    return " · ".join(
        part
        for part in (
            hit.attributes.category,
            hit.attributes.brand,
            price_of(hit.attributes),
            f"{hit.tier} tier",
        )
        if part
    )


def price_of(attributes: events_pb2.Attributes) -> str:
    """Return the price in minor units with its currency; empty when there is none."""
    if not attributes.currency:
        return ""
    return f"{attributes.price_minor:,} {attributes.currency}"


async def photo_uris(
    bootstrap: str, hits: Sequence[search_pb2.Hit]
) -> dict[tuple[str, int], Sequence[str]]:
    """Return the photo URIs of the hits' versions, as far as ``listings.events`` retains them."""
    wanted = {(hit.listing_id, hit.version) for hit in hits}
    keys = {listing_id.encode() for listing_id, _ in wanted}
    found: dict[tuple[str, int], Sequence[str]] = {}
    async with topic_tails(bootstrap, [LISTINGS_EVENTS]) as tails:
        for record in await tails[LISTINGS_EVENTS].new_records(lambda record: record.key in keys):
            event = message_of(LISTINGS_EVENTS, record.value)
            if not isinstance(event, events_pb2.ListingEvent):
                continue  # the downloader has dead-lettered it
            if (event.listing_id, event.version) in wanted:
                found[event.listing_id, event.version] = event.photo_uris
    return found


def sheet_hits(
    hits: Sequence[search_pb2.Hit], uris: Mapping[tuple[str, int], Sequence[str]]
) -> list[SheetHit]:
    """Return the hits with their photos, if available."""
    return [
        SheetHit(hit.listing_id, hit.score, details_of(hit), _picture_of(hit, uris)) for hit in hits
    ]


def _picture_of(hit: search_pb2.Hit, uris: Mapping[tuple[str, int], Sequence[str]]) -> str | None:
    photos = uris.get((hit.listing_id, hit.version), ())
    if hit.photo_number >= len(photos):
        return None
    uri = photos[hit.photo_number]
    if not uri.startswith("file:"):
        return None
    try:
        with open_regular(path_of_uri(uri)) as file:
            photo = file.read(MAX_PHOTO_BYTES + 1)
    except (OSError, ValueError):
        return None
    return thumbnail_data_uri(photo) if len(photo) <= MAX_PHOTO_BYTES else None
