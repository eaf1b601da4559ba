"""What a screen reader, a narrow screen and a dark room need of the page."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, Page, expect

from tests.browser.conftest import opened
from tests.support.photo_shop import Shop, photo_of

UNNAMED = """
() => [...document.querySelectorAll("a, button, input, select, [role], [tabindex='0'], main, section")]
  .filter((one) => one.checkVisibility() && one.matches("a, button, input, select, [tabindex='0'], section"))
  .filter((one) => !(one.getAttribute("aria-label") || one.labels?.length || one.textContent.trim()
    || document.getElementById(one.getAttribute("aria-labelledby"))))
  .map((one) => one.outerHTML)
"""

CONTRASTS = """
() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((one) => one / 255)
      .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const one of document.querySelectorAll("body *")) {
    const hasText = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!hasText || !one.checkVisibility() || one.closest("option, noscript")) continue;
    const [a, b] = [parse(getComputedStyle(one).color), ground(one)].map(luminance);
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) low.push(`${one.outerHTML.slice(0, 80)} ${contrast.toFixed(2)}`);
  }
  return low;
}
"""


async def with_hits(page: Page) -> None:
    await page.set_input_files(
        "#file", {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": photo_of(21, 1)}
    )
    await page.get_by_role("button", name="Crop", exact=True).click()
    await expect(page.get_by_role("heading", name="a part of the photo")).to_be_visible()
    await expect(page.locator("#hits")).to_have_attribute("aria-busy", "false")
    if await page.locator("#filters").get_attribute("open") is None:
        await page.locator("#filters summary").click()


async def test_everything_that_can_be_used_has_a_name(page: Page) -> None:
    assert await page.evaluate(UNNAMED) == []
    await with_hits(page)
    assert await page.evaluate(UNNAMED) == []
    duplicates = await page.evaluate(
        "() => { const ids = [...document.querySelectorAll('[id]')].map((one) => one.id);"
        "return ids.filter((one, at) => ids.indexOf(one) !== at); }"
    )
    assert duplicates == []
    assert await page.locator("html").get_attribute("lang") == "en"
    assert await page.locator("img:not([alt])").count() == 0
    assert await page.locator("main:visible").count() == 1
    assert await page.locator("h1:visible").count() == 1


async def test_what_changes_is_announced(page: Page) -> None:
    await with_hits(page)
    await expect(page.get_by_role("status").first).to_contain_text("24 listings")
    assert await page.locator("#problem").get_attribute("role") == "alert"
    names = await page.get_by_role("list", name="Listings").get_by_role("link").all_inner_texts()
    assert all(name.startswith("More like this") for name in names)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_has_a_contrast_of_at_least_4_5(
    browser: Browser, shop: Shop, scheme: str
) -> None:
    page = (await opened(browser, shop.url, color_scheme=scheme)).page
    await expect(page.locator(".card")).to_have_count(24)
    assert await page.evaluate(CONTRASTS) == []
    await with_hits(page)
    assert await page.evaluate(CONTRASTS) == []
    ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(21, 23, 25)") == (scheme == "dark")


@pytest.mark.parametrize("width", [320, 390, 768, 1024, 1600])
async def test_nothing_is_wider_than_the_screen(browser: Browser, shop: Shop, width: int) -> None:
    page = (await opened(browser, shop.url, viewport={"width": width, "height": 800})).page
    for prepare in (None, with_hits):
        if prepare is not None:
            await prepare(page)
        await expect(page.locator(".card")).to_have_count(24)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width


async def test_whoever_wants_less_motion_gets_none(browser: Browser, shop: Shop) -> None:
    for preference, moving in (("no-preference", True), ("reduce", False)):
        page = (await opened(browser, shop.url, reduced_motion=preference)).page
        durations = await page.evaluate(
            "[...document.querySelectorAll('*')].map((one) => getComputedStyle(one).transitionDuration)"
        )
        assert any(one != "0s" for one in durations) == moving


async def test_a_finger_draws_a_box(browser: Browser, shop: Shop) -> None:
    page = (
        await opened(
            browser,
            shop.url,
            viewport={"width": 390, "height": 844},
            has_touch=True,
            is_mobile=True,
        )
    ).page
    await page.set_input_files(
        "#file", {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": photo_of(21, 1)}
    )
    await expect(page.get_by_role("heading", name="Found by photo")).to_be_visible()
    stage = await page.locator("#stage").bounding_box()
    assert stage is not None
    touch = await page.context.new_cdp_session(page)

    async def send(kind: str, *points: tuple[float, float]) -> None:
        at = [
            {"x": stage["x"] + x * stage["width"], "y": stage["y"] + y * stage["height"]}
            for x, y in points
        ]
        await touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})

    await send("touchStart", (0.2, 0.3))
    for x, y in ((0.4, 0.5), (0.6, 0.7), (0.8, 0.9)):
        await send("touchMove", (x, y))
    await send("touchEnd")
    await expect(page.get_by_role("heading", name="a part of the photo")).to_be_visible()
    await expect(page.locator("#hits")).to_have_attribute("aria-busy", "false")
    assert shop.embedder.boxes[-1] == [pytest.approx((0.2, 0.3, 0.8, 0.9), abs=0.02)]
    assert await page.evaluate("scrollY") == 0
