"""What a Prometheus says about its alerts: waits until they fire and until they are resolved."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from monitoring.prometheus_api import instant
from tests.drills.sped_up import sped_up
from tests.support.prometheus import RULES, scraping
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
QUIET_SECONDS = 10
"""So long before a fault no alert may have been pending; ``for`` is no longer than that in most drills."""
_LIMIT_SECONDS = 90.0


@dataclass(frozen=True)
class ActiveAlert:
    """An alert that is pending or firing."""

    name: str
    firing: bool
    labels: Mapping[str, str]
    annotations: Mapping[str, str]

    def check(self, *, says: str) -> None:
        """Fail unless it says what the pattern says, and its runbook exists."""
        assert re.search(says, self.text), self.text
        assert "<no value>" not in self.text, self.text
        assert "error" not in self.annotations["summary"].lower(), self.text
        assert (ROOT / self.annotations["runbook"]).is_file(), self.annotations

    @property
    def text(self) -> str:
        """What a person reads first."""
        return f"{self.annotations['summary']}. {self.annotations['description']}"

    def __str__(self) -> str:
        return f"{self.name} ({'firing' if self.firing else 'pending'}): {self.text}"


class AlertWatch:
    """The alerts of one Prometheus at ``url``."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def active(self) -> list[ActiveAlert]:
        """Return the alerts that are pending or firing."""
        found = await asyncio.to_thread(_alerts_of, self.url)
        return [
            ActiveAlert(
                alert["labels"]["alertname"],
                alert["state"] == "firing",
                alert["labels"],
                alert["annotations"],
            )
            for alert in found
        ]

    async def until_quiet(self, *, besides: str = "") -> None:
        """Wait until everything is scraped and no alert, besides one, was pending for a while."""
        scraped = f"(min(count_over_time(up[1m])) >= bool {QUIET_SECONDS})"
        counted = f'(count(ALERTS{{alertname!="{besides}"}}) or vector(0))'
        active = f"(max_over_time({counted}[{QUIET_SECONDS}s:1s]) == bool 0)"
        try:
            await self.until_more(f"scalar({scraped}) * {active}", 0)
        except AssertionError:
            shown = "\n".join(map(str, await self.active()))
            raise AssertionError(f"before the fault there are alerts:\n{shown}") from None

    async def until_firing(self, name: str) -> list[ActiveAlert]:
        """Wait until an alert fires; returns all of its instances that do."""

        async def firing() -> list[ActiveAlert]:
            return [a for a in await self.active() if a.firing and a.name == name]

        try:
            found: list[ActiveAlert] = await until(
                firing, f"{name} fires", limit_seconds=_LIMIT_SECONDS, every_seconds=0.2
            )
        except AssertionError as error:
            others = "\n".join(map(str, await self.active())) or "no alert"
            raise AssertionError(f"{error}; there is:\n{others}") from None
        return found

    async def until_resolved(self, name: str) -> None:
        """Wait until an alert is neither firing nor pending."""

        async def resolved() -> bool:
            return name not in {alert.name for alert in await self.active()}

        await until(
            resolved, f"{name} is resolved", limit_seconds=_LIMIT_SECONDS, every_seconds=0.2
        )

    async def until_more(self, query: str, than: float) -> None:
        """Wait until a query has a value above a number."""

        async def more() -> bool:
            series = await asyncio.to_thread(instant, self.url, query)
            return any(value > than for one in series for _, value in one.points)

        await until(
            more, f"{query} is more than {than}", limit_seconds=_LIMIT_SECONDS, every_seconds=0.2
        )


@asynccontextmanager
async def watching(
    folder: Path, targets: Mapping[str, str], factors: Mapping[str, float]
) -> AsyncIterator[AlertWatch]:
    """Scrape targets, addresses by job, with the real rules, sped up."""
    rules = sped_up(yaml.safe_load(RULES.read_text()), factors)
    async with scraping(folder, targets, rules=rules) as url:
        yield AlertWatch(url)


def _alerts_of(url: str) -> Sequence[Mapping[str, Any]]:
    with urllib.request.urlopen(f"{url}/api/v1/alerts", timeout=10) as answer:
        found: Sequence[Mapping[str, Any]] = json.load(answer)["data"]["alerts"]
    return found
