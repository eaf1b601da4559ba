"""The files of the search page, as a browser gets them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from services.router.rest.page_files import FOLDER
from shashin.access.api_key import new_key
from shashin.access.key_file import KeyFile
from tests.support.running_router import System, running_system

FILES = sorted(path for path in FOLDER.iterdir() if path.is_file())
_IMPORT = re.compile(r"""(?:from|import\()\s*"\./([^"]+)\"""")
_LINK = re.compile(r"""(?:src|href)="(/[^"]*)\"""")
_ADDRESS = re.compile(r"""(?:https?:)?//[\w.-]+\.\w+""")


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def path_of(file: Path) -> str:
    return "/" if file.name == "index.html" else f"/page/{file.name}"


async def test_every_file_has_its_type_and_a_strict_policy(
    system: System, http: aiohttp.ClientSession
) -> None:
    types = {
        ".css": "text/css",
        ".html": "text/html",
        ".js": "text/javascript",
        ".svg": "image/svg+xml",
    }
    for file in FILES:
        async with http.get(system.rest + path_of(file)) as response:
            assert response.status == 200
            assert await response.read() == file.read_bytes()
            assert response.content_type == types[file.suffix]
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            policy = response.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
        async with http.head(system.rest + path_of(file)) as response:
            assert (response.status, await response.read()) == (200, b"")


async def test_a_file_is_sent_again_only_if_it_has_changed(
    system: System, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{system.rest}/") as response:
        etag = response.headers["ETag"]
        assert response.headers["Cache-Control"] == "no-cache"
    for known, status in (
        (etag, 304),
        (f'"other", W/{etag}', 304),
        ("*", 304),
        ('"other"', 200),
    ):
        headers = {"If-None-Match": known}
        async with http.get(f"{system.rest}/", headers=headers) as response:
            assert response.status == status
            assert response.headers["ETag"] == etag
            assert bool(await response.read()) == (status == 200)


async def test_nothing_else_is_served(system: System, http: aiohttp.ClientSession) -> None:
    for path in (
        "/page/",
        "/page/none.js",
        "/page/..%2fapp.py",
        "/page/%2e%2e/app.py",
        "/index.html",
    ):
        async with http.get(system.rest + path) as response:
            assert response.status == 404
    async with http.post(f"{system.rest}/") as response:
        assert response.status == 405


async def test_the_page_is_there_for_those_who_still_have_to_give_a_key(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    keys = tmp_path / "keys.json"
    _, stored = new_key("someone", created=datetime.now(UTC))
    KeyFile(keys).add(stored)
    async with running_system(tmp_path, accepted_keys_file=keys) as system:
        async with http.get(f"{system.rest}/") as response:
            assert response.status == 200
        async with http.get(f"{system.rest}/v1/listings/newest") as response:
            assert response.status == 401


def test_the_page_needs_nothing_that_is_not_served_with_it() -> None:
    known = {path_of(file) for file in FILES} | {"/page/pipeline.js", "/page/pipeline.css"}
    for file in FILES:
        text = file.read_text()
        found = {f"/page/{name}" for name in _IMPORT.findall(text)} | set(_LINK.findall(text))
        assert found <= known, file.name
        others = [one for one in _ADDRESS.findall(text) if one != "http://www.w3.org"]
        assert not others, file.name
