"""Every panel of every dashboard against a real Prometheus that scrapes the whole system."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import matplotlib.image as mpl_image
import pytest

from monitoring.boards import BOARDS
from monitoring.draw import draw
from monitoring.panels import Panel, Query
from monitoring.prometheus_api import instant, with_variables
from shashin.client.listing_events import SOLD
from tests.support.prometheus import scraping
from tests.support.rendered_listings import photo_of
from tests.support.running_service import RunningService
from tests.support.running_system import ConnectedSystem
from tests.support.waiting import until

DASHBOARDS = Path(__file__).parents[2] / "monitoring/dashboards"


@dataclass(frozen=True)
class Shown:
    """A query of a panel."""

    board: str
    panel: Panel
    query: Query

    def __str__(self) -> str:
        return f"{self.board}, {self.panel.title}: {self.query.expr}"


def every_query() -> list[Shown]:
    return [
        Shown(board.title, panel, query)
        for board in BOARDS
        for row in board.rows
        for panel in row.panels
        for query in panel.queries
    ]


@pytest.fixture
async def prometheus(system: ConnectedSystem, tmp_path: Path) -> AsyncIterator[str]:
    """The address of a Prometheus that scrapes the system and a canary, while something happens."""
    async with AsyncExitStack() as stack:
        values = {
            "router": system.system.router_address(),
            "photos": (system.system.photos / "canary-boards").as_uri(),
            "replica": "boards",
            "every_seconds": 1,
        }
        canary = RunningService(
            "canary", system.system.kafka_address(), values, log=tmp_path / "log"
        )
        stack.push_async_callback(canary.close)
        await canary.start()
        await canary.until_ready()
        rows = system.system.processes()
        targets = {row.name: row.addresses["http"] for row in rows if "http" in row.addresses}
        url = await stack.enter_async_context(
            scraping(tmp_path / "prometheus", {**targets, "canary": canary.http})
        )
        for happening in (_search(system), _publish(system)):
            stack.push_async_callback(_cancelled, asyncio.ensure_future(happening))
        yield url


async def _search(system: ConnectedSystem) -> None:
    while True:
        await system.answer(photo=system.running.corpus[0].photos[0], k=10)
        await asyncio.sleep(0.05)


async def _publish(system: ConnectedSystem) -> None:
    """List and sell products whose photos are new: thumbnails are written once for each photo."""
    for number in itertools.count(random.randrange(1_000_000, 1_000_000_000)):
        name = f"board-{number}"
        photo = await asyncio.to_thread(photo_of, number)
        await system.publish(name, [photo])
        await asyncio.sleep(1)
        await system.publish(name, version=2, kind=SOLD)


async def _cancelled(task: asyncio.Future[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def empty(url: str, queries: Sequence[Shown]) -> list[Shown]:
    """Return those that have no result; one that Prometheus refuses raises its error."""
    found = []
    for shown in queries:
        series = instant(url, with_variables(shown.query.expr, rate_interval="30s"))
        if not any(math.isfinite(value) for one in series for _, value in one.points):
            found.append(shown)
    return found


async def test_every_panel_shows_something_and_names_its_series(prometheus: str) -> None:
    wanted = [shown for shown in every_query() if not shown.panel.empty_until]
    left: list[Shown] = list(wanted)

    async def all_shown() -> bool:
        left[:] = await asyncio.to_thread(empty, prometheus, left)
        return not left

    try:
        await until(all_shown, "every panel shows something", limit_seconds=75, every_seconds=1)
    except AssertionError:
        pytest.fail("nothing is shown by:\n" + "\n".join(map(str, left)))
    for shown in every_query():
        series = await asyncio.to_thread(
            instant, prometheus, with_variables(shown.query.expr, rate_interval="30s")
        )
        names = [one.named(shown.query.legend) for one in series]
        assert len(set(names)) == len(names), f"{shown} names different series alike: {names}"
        for share in [s for s in series if shown.panel.unit == "percentunit"]:
            for _, value in share.points:
                assert math.isnan(value) or value >= 0, f"{shown} shows {value}"


async def test_every_dashboard_can_be_drawn(prometheus: str, tmp_path: Path) -> None:
    for file in sorted(DASHBOARDS.glob("*.json")):
        board = json.loads(file.read_text())
        picture = tmp_path / f"{file.stem}.png"
        await asyncio.to_thread(draw, board, prometheus, 60.0, picture)
        height, width, _ = mpl_image.imread(picture).shape
        assert height > 200
        assert width > 1000
