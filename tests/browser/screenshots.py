"""Takes screenshots of the page in every state, for a person to look at: ``make screenshots``."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from playwright.async_api import Browser, Page, async_playwright

from tests.support.chromium import launched
from tests.support.photo_shop import Shop, photo_of, running_shop

FOLDER = Path("build/screenshots")
WIDTHS = (390, 1024, 1600)
SCHEMES = ("light", "dark")


async def settled(page: Page) -> None:
    """Wait until what was asked for is shown, with its photos."""
    await page.wait_for_selector("#hits[aria-busy=false]", state="attached")
    await page.wait_for_load_state("networkidle")


async def take(browser: Browser, shop: Shop, width: int, scheme: str) -> None:
    """Take the screenshots of one width and colour scheme."""
    context = await browser.new_context(
        viewport={"width": width, "height": 844 if width < 600 else 900},
        color_scheme="dark" if scheme == "dark" else "light",
        locale="en-GB",
    )
    page = await context.new_page()

    async def shot(name: str, *, full: bool = False) -> None:
        await settled(page)
        await page.screenshot(path=FOLDER / f"{name}-{width}-{scheme}.png", full_page=full)

    await page.goto(shop.url)
    await shot("newest")
    photo = {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": photo_of(21, 1)}
    await page.set_input_files("#file", photo)  # type: ignore[arg-type]
    await page.get_by_role("heading", name="Found by photo").wait_for()
    await page.get_by_role("button", name="Crop", exact=True).click()
    await page.get_by_role("heading", name="a part of the photo").wait_for()
    await shot("crop", full=width < 600)
    await page.locator("#hits a").first.click()
    await page.get_by_role("heading", name="More like").wait_for()
    if await page.locator("#filters").get_attribute("open") is None:
        await page.locator("#filters summary").click()
    await page.get_by_label("Category").fill("goods")
    await page.get_by_label("Highest price").fill("12,000")
    await page.locator("#hits").get_by_text("¥26,400").wait_for(state="detached")
    await shot("similar")
    await page.get_by_label("Category").fill("nothing/at all")
    await page.get_by_text("Nothing was found.").wait_for()
    await shot("nothing")
    await context.close()


async def take_failures(browser: Browser, shop: Shop) -> None:
    """Take the screenshots of what can go wrong; they end the endpoints."""
    hourly = next(one for one in shop.system.endpoints if one.name == "hourly")
    await hourly.stop()
    for scheme in SCHEMES:
        context = await browser.new_context(
            viewport={"width": 1024, "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
        )
        page = await context.new_page()
        await page.goto(shop.url)
        await page.goto(f"{shop.url}#/similar/{shop.offers[-1].listing_id}")
        await page.get_by_text("Some listings may be missing").wait_for()
        await settled(page)
        await page.screenshot(path=FOLDER / f"incomplete-1024-{scheme}.png")
        await page.goto(f"{shop.url}#/similar/none")
        await page.get_by_role("alert").filter(has_text="none").wait_for()
        await page.screenshot(path=FOLDER / f"problem-1024-{scheme}.png")
        await page.goto(f"{shop.url}#pipeline")
        await page.get_by_text("Live, as of").wait_for()
        await page.screenshot(path=FOLDER / f"pipeline-1024-{scheme}.png")
        await page.evaluate("document.getElementById('key').showModal()")
        await page.screenshot(path=FOLDER / f"key-1024-{scheme}.png")
        await context.close()


async def main() -> None:
    """Take all of them."""
    with tempfile.TemporaryDirectory() as folder:
        async with running_shop(Path(folder)) as shop, async_playwright() as playwright:
            await shop.system.until_described()
            browser = await launched(playwright)
            for width in WIDTHS:
                for scheme in SCHEMES:
                    await take(browser, shop, width, scheme)
            await take_failures(browser, shop)
            await browser.close()


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    asyncio.run(main())
