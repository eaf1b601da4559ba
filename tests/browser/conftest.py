"""A browser for the tests of the page: the Chromium in PATH, or the one of SHASHIN_TEST_CHROMIUM."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright

from tests.support.chromium import CHROMIUM, MISSING, launched
from tests.support.photo_shop import Shop, running_shop


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip(MISSING)
    async with async_playwright() as playwright:
        started = await launched(playwright)
        yield started
        await started.close()


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with running_shop(tmp_path) as running:
        await running.system.until_described()
        yield running


@dataclass
class Watched:
    """A page, with what went wrong in it."""

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def of_console(self, message: ConsoleMessage) -> None:
        """Note an error; a thumbnail that does not exist is shown as its number, and is none."""
        location = message.location.get("url", "")
        expected = "/v1/thumbnails/" in location and "404" in message.text
        if message.type in {"error", "warning"} and not expected:
            self.errors.append(f"{message.text} ({location})")

    def of_request(self, request: Request) -> None:
        """Note what is asked for."""
        self.requests.append(request.url)

    def origins(self) -> set[str]:
        """Return where requests went to."""
        return {
            f"{url.scheme}://{url.netloc}" for url in map(urlsplit, self.requests) if url.netloc
        }


async def opened(browser: Browser, url: str, **context: Any) -> Watched:
    """Open a page in a context of its own."""
    context = {"viewport": {"width": 1280, "height": 900}, "locale": "en-GB", **context}
    page = await (await browser.new_context(**context)).new_page()
    page.set_default_timeout(30_000)
    watched = Watched(page)
    page.on("console", watched.of_console)
    page.on("pageerror", lambda error: watched.errors.append(str(error)))
    page.on("request", watched.of_request)
    await page.goto(url)
    return watched


@pytest.fixture
async def watched(browser: Browser, shop: Shop) -> AsyncIterator[Watched]:
    """The page of the shop. At the end, nothing may have gone wrong or elsewhere."""
    opened_page = await opened(browser, shop.url)
    yield opened_page
    assert opened_page.errors == []
    assert opened_page.origins() == {shop.system.rest}


@pytest.fixture
def page(watched: Watched) -> Page:
    return watched.page
