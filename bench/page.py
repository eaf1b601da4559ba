"""The search page in Chromium: how soon it shows listings, and what a dropped photo finds."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from playwright.async_api import Browser, Page, async_playwright

from bench.figures import percentile
from bench.workload import Workload
from shashin.errors import UserError
from tests.support.chromium import CHROMIUM, MISSING, launched

_VIEWS = 5
_DROPS = 15
_LISTINGS = 60

# Chromium paints before the callback of the second animation frame. Photos count once they are decoded, those
# below the fold are not loaded yet.
_PAINTED = """
const settled = () => {
  const hits = document.getElementById("hits");
  if (!hits || hits.getAttribute("aria-busy") !== "false" || !hits.children.length) return false;
  const seen = [...hits.querySelectorAll("img")].filter(
    (one) => one.getBoundingClientRect().top < innerHeight && !one.hidden,
  );
  return seen.every((one) => one.complete);
};
const frame = () => new Promise((go) => requestAnimationFrame(go));
const painted = async (begun) => {
  while (!begun() || !settled()) await frame();
  await frame();
  await frame();
  return performance.now();
};
"""

FIRST_VIEW = f"""async () => {{
{_PAINTED}
return painted(() => true);
}}"""
"""Milliseconds from the start of the navigation until the newest listings are painted with their photos."""

DROP = f"""async (content) => {{
{_PAINTED}
const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
const transfer = new DataTransfer();
transfer.items.add(new File([bytes], "photo.jpg", {{ type: "image/jpeg" }}));
const before = document.getElementById("hits").firstElementChild;
const from = performance.now();
document.getElementById("search").dispatchEvent(
  new DragEvent("drop", {{ dataTransfer: transfer, bubbles: true, cancelable: true }}),
);
const until = await painted(() => document.getElementById("hits").firstElementChild !== before);
return until - from;
}}"""
"""Milliseconds from the drop of a photo until its hits are painted with their photos."""


async def page(workload: Workload) -> dict[str, float]:
    """Open the page of the running system, and drop photos on it.

    Raises:
        UserError: if there is no Chromium.
    """
    if CHROMIUM is None:
        raise UserError(MISSING)
    url = workload.system.page_url()
    assert url is not None
    await workload.publish(_LISTINGS)
    queries = [one.query for one in workload.listings if one.query is not None][:_DROPS]
    photos = [
        base64.b64encode(await asyncio.to_thread(query.read_bytes)).decode() for query in queries
    ]
    async with async_playwright() as playwright:
        browser = await launched(playwright)
        views = [await _first_view(browser, url) for _ in range(_VIEWS)]
        opened = await _opened(browser, url)
        drops = [float(await opened.evaluate(DROP, photo)) for photo in photos]
        await browser.close()
    return {
        "page: first view, newest listings painted": percentile(views, 0.5) / 1e3,
        "page: a photo dropped, hits painted p50": percentile(drops, 0.5),
        "page: a photo dropped, hits painted p90": percentile(drops, 0.9),
    }


async def _first_view(browser: Browser, url: str) -> float:
    """Return the milliseconds of a visit with an empty cache."""
    opened = await _opened(browser, url)
    taken: Any = await opened.evaluate(FIRST_VIEW)
    await opened.context.close()
    return float(taken)


async def _opened(browser: Browser, url: str) -> Page:
    context = await browser.new_context(viewport={"width": 1280, "height": 900})
    opened = await context.new_page()
    await opened.goto(url, wait_until="commit")
    return opened
