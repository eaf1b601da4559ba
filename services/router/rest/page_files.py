"""Serves the search page: the files of ``page``, which need nothing from anywhere else."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parent / "page"
PREFIX = "/page/"

_INDEX = "index.html"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Images from blobs: the photo that is searched for, and thumbnails that need a key.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Cache-Control": "no-cache",  # kept, and asked for again: a new router has new files
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class _File:
    content: bytes
    media_type: str
    etag: str


def add_page(app: FastAPI, folder: Path = FOLDER) -> None:
    """Serve the page at ``/`` and its files below ``/page/``, as they are in the folder now."""
    for path in sorted(folder.iterdir()):
        if path.suffix in _TYPES:
            content = path.read_bytes()
            file = _File(
                content, _TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            )
            route = "/" if path.name == _INDEX else PREFIX + path.name
            app.add_route(route, partial(_answer, file), methods=["GET"], include_in_schema=False)


async def _answer(file: _File, request: Request) -> Response:
    headers = {**_HEADERS, "ETag": file.etag}
    if _matches(request.headers.get("if-none-match", ""), file.etag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)


def _matches(given: str, etag: str) -> bool:
    """Whether ``If-None-Match`` names this version, also weakly, as a proxy that compresses does (RFC 9110)."""
    return any(one.strip().removeprefix("W/") in {etag, "*"} for one in given.split(","))
