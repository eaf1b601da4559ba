"""What the metrics of processes counted that are killed and started again meanwhile."""

from __future__ import annotations

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

_SECONDS = 5.0


class Counted:
    """Sums of the last metrics that each run of each process reported.

    What a process counts in its last moments may be missing. Samples of one metric are told apart by
    one of their labels.
    """

    def __init__(self, *, label: str) -> None:
        self._label = label
        self._by_run: dict[tuple[str, int], dict[tuple[str, str], float]] = {}

    async def look(self, name: str, pid: int, address: str) -> None:
        """Read the metrics of a process, which may be away."""
        page = await page_of(address)
        if not page:
            return
        samples: dict[tuple[str, str], float] = {}
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                key = sample.name, sample.labels.get(self._label, "")
                samples[key] = samples.get(key, 0.0) + sample.value
        self._by_run[name, pid] = samples

    def total(self, metric: str, *, of: str | None = None, label: str | None = None) -> int:
        """Return the sum over all runs of one process, or of every process."""
        return int(
            sum(
                value
                for (name, _), samples in self._by_run.items()
                for (sample, labelled), value in samples.items()
                if sample == metric and of in {None, name} and label in {None, labelled}
            )
        )


async def page_of(address: str) -> str:
    """Return the metrics of HOST:PORT as text; nothing if it does not answer."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_SECONDS)) as session,
            session.get(f"http://{address}/metrics") as response,
        ):
            return await response.text() if response.status == 200 else ""
    except (TimeoutError, aiohttp.ClientError):
        return ""
