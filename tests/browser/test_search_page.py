"""The search page in a browser, against a real router with real photos."""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from playwright.async_api import Browser, FileChooser, FilePayload, Page, Route, expect

from shashin.access.api_key import new_key
from shashin.access.key_file import KeyFile
from tests.browser.conftest import Watched, opened
from tests.support.photo_shop import Shop, photo_of, running_shop
from tests.support.running_router import running_system

SHOWN = 21
"""The product whose photos are searched for; it has two, and both have thumbnails."""

DROP = """
([content, type, target]) => {
  const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "photo.jpg", { type }));
  const event = target === "paste"
    ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true })
    : new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
  document.getElementById("search").dispatchEvent(event);
}
"""


PHOTO: FilePayload = {
    "name": "photo.jpg",
    "mimeType": "image/jpeg",
    "buffer": photo_of(SHOWN, 1),
}


async def ids(page: Page) -> list[str]:
    links = await page.locator("#hits a").evaluate_all("all => all.map((one) => one.title)")
    return [title.removeprefix("More like ") for title in links]


async def search_answered(page: Page, act: Awaitable[Any]) -> Any:
    """Do something, and return the answer of the search that it leads to."""
    async with page.expect_response(re.compile(r"/v1/(search|listings/.*/similar)")) as asked:
        await act
    response = await asked.value
    await expect(page.locator("#hits")).to_have_attribute("aria-busy", "false")
    return await response.json()


async def choose(page: Page) -> None:
    await search_answered(page, page.set_input_files("#file", PHOTO))
    await expect(page.get_by_role("heading", name="Found by photo")).to_be_visible()


async def test_without_a_query_the_newest_listings_are_shown(page: Page, shop: Shop) -> None:
    await expect(page.get_by_role("heading", name="Newest listings")).to_be_visible()
    await expect(page.locator(".card")).to_have_count(24)
    newest = [one.listing_id for one in reversed(shop.offers)]
    assert await ids(page) == newest[:24]
    await expect(page.locator(".new")).to_have_count(8)
    await expect(page.locator(".no-photo")).to_have_text(["Photo 1"] * 3)
    first = shop.offers[-1].attributes
    price = page.locator(".card").first.locator(".price")
    await expect(price).to_have_text(f"¥{first.price_minor:,}")
    await page.get_by_role("button", name="Show more").click()
    await expect(page.locator(".card")).to_have_count(48)
    assert await ids(page) == newest[:48]
    await expect(page.locator(".card a").nth(24)).to_be_focused()


@pytest.mark.parametrize("how", ["choose", "drop", "paste"])
async def test_a_photo_is_searched_for_and_its_listing_found(
    page: Page, shop: Shop, how: str
) -> None:
    if how == "choose":
        await choose(page)
    else:
        content = base64.b64encode(photo_of(SHOWN, 1)).decode()
        await page.evaluate(DROP, [content, "image/jpeg", how])
    await expect(page.get_by_role("heading", name="Found by photo")).to_be_visible()
    await expect(page.locator("#line")).to_contain_text("2 of 2 endpoints answered · complete")
    assert (await ids(page))[0] == shop.offers[SHOWN].listing_id
    await expect(page.locator(".score").first).to_have_text("similarity 1.000")
    await expect(page.get_by_alt_text("The photo that is searched for")).to_be_visible()
    painted = page.locator("#hits img").first
    await expect(painted).to_have_js_property("complete", value=True)
    assert await painted.evaluate("image => image.naturalWidth") == 256
    assert shop.embedder.boxes == [[]]


async def test_a_box_that_is_drawn_is_the_part_that_is_searched_for(page: Page, shop: Shop) -> None:
    await choose(page)
    before = await ids(page)
    stage = await page.locator("#stage").bounding_box()
    assert stage is not None

    def at(x: float, y: float) -> tuple[float, float]:
        return stage["x"] + x * stage["width"], stage["y"] + y * stage["height"]

    await page.mouse.move(*at(0.5, 0.1))
    await page.mouse.down()
    await page.mouse.move(*at(0.7, 0.3), steps=4)
    await page.mouse.move(*at(0.9, 0.5))
    await search_answered(page, page.mouse.up())
    await expect(page.get_by_role("heading", name="Found by a part of the photo")).to_be_visible()
    assert shop.embedder.boxes[-1] == [pytest.approx((0.5, 0.1, 0.9, 0.5), abs=0.02)]
    assert await ids(page) != before
    # By its corner, to the left.
    await page.mouse.move(*at(0.5, 0.5))
    await page.mouse.down()
    await page.mouse.move(*at(0.2, 0.5), steps=3)
    await search_answered(page, page.mouse.up())
    assert shop.embedder.boxes[-1] == [pytest.approx((0.2, 0.1, 0.9, 0.5), abs=0.02)]
    await search_answered(page, page.get_by_role("button", name="Clear crop").click())
    assert shop.embedder.boxes[-1] == []
    assert await ids(page) == before


async def test_filters_leave_out_what_does_not_meet_them(page: Page, shop: Shop) -> None:
    await choose(page)
    of_shown = shop.offers[SHOWN].attributes
    await search_answered(page, page.get_by_label("Category").fill(of_shown.category))
    found = [shop.offer(one).attributes for one in await ids(page)]
    assert {one.category for one in found} == {of_shown.category}
    await search_answered(page, page.get_by_label("Category").fill("goods/"))
    assert len(await ids(page)) == 24
    await search_answered(page, page.get_by_label("Brand").fill(of_shown.brand))
    await search_answered(page, page.get_by_label("Highest price").fill("15,000"))
    found = [shop.offer(one).attributes for one in await ids(page)]
    expected = [
        one.listing_id
        for one in shop.offers
        if one.attributes.brand == of_shown.brand and one.attributes.price_minor <= 15_000
    ]
    assert expected
    assert sorted(await ids(page)) == sorted(expected)
    await expect(page.locator("#filters-set")).to_have_text("3")
    await search_answered(page, page.get_by_label("Listed").select_option("30"))
    recent = [shop.offers.index(shop.offer(one)) for one in await ids(page)]
    assert all(number >= 30 for number in recent)
    await search_answered(page, page.get_by_role("button", name="Clear filters").click())
    assert len(await ids(page)) == 24
    await page.get_by_label("Lowest price").fill("cheap")
    await expect(page.get_by_text("Prices are numbers")).to_be_visible()
    await page.get_by_label("Lowest price").fill("")
    await search_answered(page, page.get_by_label("Category").fill("goods/nothing"))
    await expect(page.get_by_text("Nothing was found.")).to_contain_text("goods/nothing")


async def test_a_listing_leads_to_more_like_it_and_back(page: Page, shop: Shop) -> None:
    await choose(page)
    hits = await ids(page)
    async with page.expect_response(f"**/v1/listings/{hits[1]}/similar**") as asked:
        await page.locator("#hits a").nth(1).click()
    answer = await (await asked.value).json()
    await expect(page.get_by_role("heading", name=f"More like {hits[1]}")).to_be_visible()
    await expect(page.locator(".card")).to_have_count(24)
    assert await ids(page) == [one["listing_id"] for one in answer["hits"]]
    assert hits[1] not in await ids(page)
    # With a filter that only a search in JSON has.
    answer = await search_answered(page, page.get_by_label("Highest price").fill("9000"))
    assert await ids(page) == [one["listing_id"] for one in answer["hits"]]
    prices = [shop.offer(one).attributes.price_minor for one in await ids(page)]
    assert prices
    assert max(prices) <= 9000
    await page.get_by_label("Highest price").fill("")
    await page.get_by_role("link", name="Back to the photo").click()
    await expect(page.get_by_role("heading", name="Found by photo")).to_be_visible()
    await expect(page.locator(".card a").first).to_have_attribute("title", f"More like {hits[0]}")
    await page.get_by_role("button", name="Remove").click()
    await expect(page.get_by_role("heading", name="Newest listings")).to_be_visible()


async def test_everything_can_be_done_with_keys(page: Page, shop: Shop) -> None:
    choosers: list[FileChooser] = []

    def chosen(chooser: FileChooser) -> None:
        choosers.append(chooser)

    # Long before the key opens the dialog: Playwright does not wait until dialogs are intercepted,
    # and a busy browser opens its own otherwise.
    page.on("filechooser", chosen)
    await expect(page.locator(".card")).to_have_count(24)

    async def until_focused(name: str) -> None:
        for _ in range(40):
            await page.keyboard.press("Tab")
            if await page.evaluate(f"document.activeElement.id === '{name}'"):
                return
        raise AssertionError(f"no Tab leads to {name}")

    await until_focused("file")
    async with page.expect_file_chooser():
        await page.keyboard.press("Enter")
    await search_answered(page, choosers[0].set_files(PHOTO))
    await until_focused("crop-begin")
    await page.keyboard.press("Enter")
    box = page.get_by_role("application")
    await expect(box).to_be_focused()
    await page.keyboard.press("ArrowLeft")
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Shift+ArrowRight")
    await expect(box).to_have_attribute("aria-label", "across 18 to 80%, down 22 to 82%")
    await expect(page.get_by_role("heading", name="a part of the photo")).to_be_visible()
    await expect(page.locator("#hits")).to_have_attribute("aria-busy", "false")
    assert shop.embedder.boxes[-1] == [pytest.approx((0.18, 0.22, 0.8, 0.82), abs=1e-5)]
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("button", name="Crop", exact=True)).to_be_focused()
    await expect(page.get_by_role("heading", name="Found by photo")).to_be_visible()
    await until_focused("category")
    await page.keyboard.type(shop.offers[SHOWN].attributes.category)
    await expect(page.locator("#filters-set")).to_have_text("1")
    await page.locator("#hits a").first.focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="More like")).to_be_visible()


async def test_an_answer_that_is_overtaken_is_not_shown(page: Page, shop: Shop) -> None:
    held: list[Route] = []

    async def hold(route: Route) -> None:
        held.append(route)
        if len(held) > 1:
            await route.continue_()

    await page.route("**/v1/search", hold)
    async with page.expect_event(
        "requestfailed", lambda request: request.url.endswith("/v1/search")
    ):
        await page.set_input_files("#file", PHOTO)
        await expect(page.locator("#line")).to_have_text("Searching…")
        await page.get_by_role("button", name="Crop", exact=True).click()
    await expect(page.get_by_role("heading", name="a part of the photo")).to_be_visible()
    await expect(page.locator("#line")).to_contain_text("complete")
    assert len(held) == 2
    assert [len(boxes) for boxes in shop.embedder.boxes] == [1]


async def test_an_incomplete_answer_says_so_in_words(page: Page, shop: Shop) -> None:
    await choose(page)
    await expect(page.locator("#line")).to_contain_text("complete")
    await expect(page.locator("#incomplete")).to_be_hidden()
    await next(one for one in shop.system.endpoints if one.name == "hourly").stop()
    await search_answered(page, page.get_by_label("Category").fill("goods"))
    await expect(page.locator("#incomplete")).to_contain_text("hourly did not answer (unavailable)")
    await expect(page.locator("#incomplete")).to_contain_text("30 records of the log")
    await expect(page.locator("#line")).to_contain_text("1 of 2 endpoints answered · incomplete")


async def test_errors_are_said_in_the_router_s_words(browser: Browser, tmp_path: Path) -> None:
    async with running_system(tmp_path) as system:
        watched = await opened(browser, f"{system.rest}/")
        alert = watched.page.locator("#problem")
        await expect(alert).to_contain_text("No index endpoint is known: discovery has no indexer")
        await expect(alert.get_by_role("button", name="Try again")).to_be_visible()
        await watched.page.goto(f"{system.rest}/#/similar/a%2Fb")
        await expect(watched.page.get_by_role("heading", name="More like a/b")).to_be_visible()
        assert system.stop is not None
        await system.stop()
        await alert.get_by_role("button", name="Try again").click()
        await expect(alert).to_contain_text("The router cannot be reached")


async def test_what_is_no_photo_is_a_problem_and_the_next_photo_is_searched_for(
    watched: Watched, shop: Shop
) -> None:
    page = watched.page
    shop.embedder.refusal = (grpc.StatusCode.INVALID_ARGUMENT, "PhotoUndecodable: not a photo")
    await page.set_input_files(
        "#file", {"name": "photo.heic", "mimeType": "image/heic", "buffer": b"no photo"}
    )
    await expect(page.locator("#problem")).to_contain_text("not a photo", ignore_case=True)
    await expect(page.get_by_text("photo.heic is searched for as it is")).to_be_visible()
    await expect(page.get_by_role("button", name="Crop", exact=True)).to_be_hidden()
    watched.errors.clear()  # the refusal, which Chromium notes
    shop.embedder.refusal = None
    await choose(page)
    await expect(page.locator("#problem")).to_be_hidden()
    await expect(page.locator(".card")).to_have_count(24)


async def test_a_router_with_keys_is_asked_with_one_also_for_thumbnails(
    browser: Browser, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    key, stored = new_key("page", created=datetime.now(UTC))
    KeyFile(keys).add(stored)
    async with running_shop(tmp_path, without_thumbnails=0, accepted_keys_file=keys) as shop:
        watched = await opened(browser, shop.url)
        page = watched.page
        dialog = page.get_by_role("dialog", name="API key")
        await dialog.get_by_label("Key").fill("wrong")
        await dialog.get_by_role("button", name="Use this key").click()
        await expect(dialog.locator("#key-why")).to_contain_text("malformed")
        await dialog.get_by_label("Key").fill(key)
        await dialog.get_by_role("button", name="Use this key").click()
        await expect(page.locator(".card")).to_have_count(24)
        await expect(page.locator("#hits img[src^='blob:']")).to_have_count(24)
        await expect(page.locator(".no-photo")).to_have_count(0)
        assert key not in page.url
        await page.reload()
        await expect(page.locator(".card")).to_have_count(24)
        await expect(dialog).to_be_hidden()
        other = await opened(browser, shop.url)
        await other.page.get_by_role("button", name="Cancel").click()
        await expect(other.page.locator("#problem")).to_be_visible()


async def serve_module(module: str | None, route: Route) -> None:
    if module is None:
        await route.fulfill(status=404)
    else:
        await route.fulfill(content_type="text/javascript", body=module)


async def test_the_pipeline_has_a_view_or_says_that_it_has_none(
    browser: Browser, shop: Shop
) -> None:
    made = """
        export function mount(element) { element.textContent = "The stages"; }
        export function unmount() { document.title = "unmounted"; }
    """
    for module, words in (
        (None, "The view of the pipeline is not available"),
        (made, "The stages"),
    ):
        page = (await opened(browser, shop.url)).page

        await page.route("**/page/pipeline.js", partial(serve_module, module))
        await page.get_by_role("link", name="Pipeline").click()
        await expect(page.get_by_text(words)).to_be_visible()
        await expect(page.get_by_role("link", name="Pipeline")).to_have_attribute(
            "aria-current", "page"
        )
        await page.get_by_role("link", name="Search", exact=True).click()
        await expect(page.get_by_role("heading", name="Newest listings")).to_be_visible()
        assert (await page.title() == "unmounted") == (module is not None)
