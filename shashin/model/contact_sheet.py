"""A page that shows the worst misses of an evaluation, in one HTML file without anything outside of it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

from shashin.model.photo_evaluation import Miss
from shashin.model.photo_folders import open_photo

_SIDE = 128
_STYLE = (
    "body{font:14px system-ui;margin:2em}table{border-collapse:collapse}td,th{padding:.5em;"
    "vertical-align:top;text-align:left;border-bottom:1px solid #ccc}figure{display:inline-block;"
    "margin:0 .5em 0 0;width:132px}figcaption{font-size:11px;overflow-wrap:anywhere}"
)


def contact_sheet(model_id: str, misses: Sequence[Miss]) -> str:
    """Return the page: each query with what was found first, and what should have been.

    Raises:
        PhotoFolderError: if a photo cannot be used.
    """
    rows = "".join(_row(miss) for miss in misses) or '<tr><td colspan="4">none</td></tr>'
    title = f"{html.escape(model_id)}: {len(misses)} worst misses"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style><h1>{title}</h1><p>Queries are shown as their photo was before it was "
        "changed or put into clutter.</p><table><tr><th>search</th><th>query</th><th>found first</th>"
        f"<th>expected</th></tr>{rows}</table></html>\n"
    )


def _row(miss: Miss) -> str:
    found = "".join(_figure(path) for path in miss.found)
    return (
        f"<tr><td>{html.escape(miss.search)}<br>place {miss.rank:,}</td><td>{_figure(miss.query)}</td>"
        f"<td>{found}</td><td>{_figure(miss.expected)}</td></tr>"
    )


def _figure(path: Path) -> str:
    photo = open_photo(path)
    photo.thumbnail((_SIDE, _SIDE))
    kept = io.BytesIO()
    photo.save(kept, "JPEG", quality=75)
    data = base64.b64encode(kept.getvalue()).decode()
    name = html.escape(f"{path.parent.name}/{path.name}")
    return f'<figure><img src="data:image/jpeg;base64,{data}" alt="{name}"><figcaption>{name}</figcaption></figure>'
