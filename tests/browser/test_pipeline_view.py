"""The pipeline view in a real browser, on a page of its own, over a real router.

Screenshots are in build/screenshots.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.chromium import CHROMIUM, MISSING, launched
from tests.support.pipeline_page import Front, fill, front_of
from tests.support.running_router import Listing, System, running_system, shard_of
from tests.support.waiting import until

playwright = pytest.importorskip("playwright.async_api", reason="Playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)

SHOTS = Path(__file__).parents[2] / "build" / "screenshots"


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    async with running_system(tmp_path) as running:
        yield running


@pytest.fixture
async def browser() -> AsyncIterator[Any]:
    async with playwright.async_playwright() as started:
        browser = await launched(started)
        yield browser
        await browser.close()


async def opened(browser: Any, front: Front, **context: Any) -> tuple[Any, list[str]]:
    """Open the page; what its console complains about, and requests to elsewhere, come into the list."""
    page = await (await browser.new_context(**context)).new_page()
    complaints: list[str] = []

    def of_console(message: Any) -> None:
        if message.type in {"error", "warning"}:
            complaints.append(message.text)

    def of_request(request: Any) -> None:
        if not request.url.startswith(front.url):
            complaints.append(request.url)

    page.on("console", of_console)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", of_request)
    await page.goto(front.url)
    await page.wait_for_selector(".pipeline-view .content:not([hidden])")
    return page, complaints


async def text(page: Any, selector: str) -> str:
    return str(await page.locator(selector).first.inner_text())


async def test_figures_move_without_anything_being_rebuilt(browser: Any, system: System) -> None:
    traffic = await fill(system)
    async with front_of(system) as front:
        page, complaints = await opened(browser, front)

        async def has_rate() -> bool:
            return (await text(page, "[data-stage=app] .figure")).replace(".", "").isdigit()

        await until(has_rate, "the rate of events is shown")
        first = await page.query_selector("[data-stage=app]")
        bar = await page.query_selector(".bar")
        offsets = await text(page, "[data-stage=app] .lag")
        assert "behind" in await text(page, "[data-stage=embedder] .lag")

        async def grows() -> bool:
            return await text(page, "[data-stage=app] .lag") != offsets

        await until(grows, "the number of events grows")
        traffic.dead_letters = 7

        async def lettered() -> bool:
            return await text(page, "[aria-labelledby=pipeline-letters] .verdict") == "7 retained"

        await until(lettered, "dead letters are shown")
        assert "7 of them new" in await text(page, ".letters")
        assert await first.evaluate("node => node.isConnected")
        assert await bar.evaluate("node => node.isConnected")
        assert "from event to searchable" in await text(
            page, "[aria-labelledby=pipeline-freshness] .verdict"
        )
        assert await text(page, "[aria-labelledby=pipeline-coverage] .verdict") == "Incomplete"
        assert await page.locator(".lane").count() == 4
        assert await page.locator("[data-tier=hourly] .bar").count() == 18
        assert "not ready:" in await text(page, ".endpoints tbody tr:last-child td:nth-child(3)")
        assert "Coverage is" in await text(page, ".read-out[aria-live=polite]")
        assert not complaints, complaints

        await page.evaluate("view.unmount()")
        assert await page.locator("#pipeline > *").count() == 0
        await page.evaluate("view.mount()")
        await page.wait_for_selector(".pipeline-view .content:not([hidden])")


async def test_a_shard_is_described_to_the_keyboard(browser: Any, system: System) -> None:
    await fill(system)
    async with front_of(system) as front:
        page, complaints = await opened(browser, front)
        await page.wait_for_selector("[data-tier=hourly] .bar[tabindex='0']")
        assert await page.locator("[data-tier=hourly] .bar[tabindex='0']").count() == 1
        await page.locator("[data-tier=hourly] .bar[tabindex='0']").focus()
        before = await text(page, ".tooltip")
        assert "served by hourly-0, hourly-1" in before
        assert "model test-model" in before
        await page.keyboard.press("ArrowLeft")
        after = await text(page, ".tooltip")
        assert after != before
        assert await page.locator("[data-tier=hourly] .bar[tabindex='0']").count() == 1
        await page.keyboard.press("Escape")
        assert not await page.locator(".tooltip").is_visible()
        for drawing in await page.locator("svg:not([aria-hidden])").all():
            assert await drawing.get_attribute("aria-label")
        await page.get_by_text("Shards as a table").click()
        rows = page.locator("tr", has_text="hourly.p0000")
        assert await rows.count() == 6
        assert not complaints, complaints


async def test_a_router_that_does_not_answer_is_said_and_recovers(
    browser: Any, system: System
) -> None:
    await fill(system)
    async with front_of(system) as front:
        page, _ = await opened(browser, front)
        front.reachable = False
        await page.wait_for_selector(".pipeline-view.stale")
        status = await text(page, ".status")
        assert status.startswith("The router does not answer. What is shown is as of")
        assert await page.locator("[data-tier=hourly] .bar").count() == 18, "the last state stays"
        front.reachable = True
        await page.wait_for_selector(".pipeline-view:not(.stale)")
        assert (await text(page, ".status")).startswith("Live")


async def test_the_router_says_why_it_refuses(browser: Any, system: System) -> None:
    await system.index("indexer", "live", shard_of([Listing("a")]))
    async with front_of(system) as front:
        page, _ = await opened(browser, front)
        await page.route(
            "**/v1/pipeline*",
            lambda route: route.fulfill(
                status=401, content_type="application/problem+json", body='{"detail": "no API key"}'
            ),
        )
        await page.get_by_text("The router refuses: no API key.").first.wait_for()


async def test_the_page_may_send_its_key(browser: Any, system: System) -> None:
    await system.index("indexer", "live", shard_of([Listing("a")]))
    async with front_of(system) as front:
        context = await browser.new_context()
        await context.add_init_script(
            "window.shashin = { fetch: (path, options) =>"
            " fetch(path, { ...options, headers: { Authorization: 'Bearer k' } }) };"
        )
        page = await context.new_page()
        async with page.expect_request("**/v1/pipeline*") as asked:
            await page.goto(front.url)
        assert (await (await asked.value).all_headers())["authorization"] == "Bearer k"


HISTORY = """async () => {
  const { History } = await import("/page/pipeline_history.js");
  const history = new History();
  const answer = (model, at, letters) => ({ model_id: model, at: at.at(-1), history: {
    at, rates: { app: at }, behind: {}, freshness_seconds: at, dead_letters: letters } });
  const lengths = [];
  for (const one of [
    answer("m", [1, 2], [5, 5]),
    answer("m", [1, 2], [5, 5]),
    answer("m", [2, 3], [5, 7]),
    answer("m", [302.5], [8]),
  ]) {
    history.add(one);
    lengths.push(history.columns().map((column) => column.length));
  }
  const added = history.newDeadLetters;
  history.add(answer("other", [303], [0]));
  return [lengths, added, history.at];
}"""


async def test_the_history_of_the_page_has_each_sample_once_and_five_minutes_of_one_model(
    browser: Any, system: System
) -> None:
    async with front_of(system) as front:
        page, _ = await opened(browser, front)
        lengths, added, at = await page.evaluate(HISTORY)
    assert lengths == [[2] * 4, [2] * 4, [3] * 4, [2] * 4]
    assert added == 1
    assert at == [303]


WORDS = """async (coverage) => (await import("/page/pipeline_words.js")).coverageWords(coverage)"""


@pytest.mark.parametrize(
    ("coverage", "words"),
    [
        ({"complete": True}, ["Everything that should be searchable is"]),
        (
            {"missing": [(0, 5, 6)]},
            ["1 offset is in no ready endpoint: partition 0, offsets 5 to 6."],
        ),
        (
            {"missing": [(p, 0, 10) for p in range(5)], "unknown_partitions": [2, 7]},
            ["50 offsets are in no ready endpoint", "No live tier reports partitions 2, 7."],
        ),
        ({}, ["No live tier has reported the log yet."]),
        ({"end_unknown_seconds": 40}, ["No live tier", "could not be read for 40 s."]),
    ],
)
async def test_coverage_is_said_in_words(
    browser: Any, system: System, coverage: dict[str, Any], words: list[str]
) -> None:
    names = ("partition", "from_offset", "to_offset")
    document = {"complete": False, "unknown_partitions": [], "end_unknown_seconds": 0, **coverage}
    document["missing"] = [
        dict(zip(names, one, strict=True)) for one in coverage.get("missing", [])
    ]
    async with front_of(system) as front:
        page, _ = await opened(browser, front)
        said = await page.evaluate(WORDS, document)
    assert len(said) == len(words)
    for sentence, part in zip(said, words, strict=True):
        assert part in sentence


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1024, 1600])
async def test_it_fits_the_window(browser: Any, system: System, width: int, scheme: str) -> None:
    traffic = await fill(system)
    traffic.dead_letters = 3
    async with front_of(system) as front:
        page, complaints = await opened(
            browser, front, viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        line = page.locator("[data-stage=app] .line")

        async def drawn() -> bool:
            return (await line.get_attribute("d") or "").count("L") >= 8

        await until(drawn, "the last seconds are drawn")
        inside = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        assert await page.evaluate(inside), "nothing is wider than the window"
        SHOTS.mkdir(parents=True, exist_ok=True)
        await page.locator("[data-tier=daily] .bar").nth(3).hover()
        await page.screenshot(path=SHOTS / f"pipeline-{width}-{scheme}.png", full_page=True)
        assert not complaints, complaints
