"""A real Prometheus that scrapes processes of a test, with this project's rules."""

from __future__ import annotations

import asyncio
import json
import shutil
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from shashin.local.ports import HOST, free_port
from tests.support.waiting import until

RULES = Path(__file__).parents[2] / "monitoring/prometheus/rules/shashin.yml"


@asynccontextmanager
async def scraping(
    folder: Path, targets: Mapping[str, str], *, rules: Mapping[str, Any] | None = None
) -> AsyncIterator[str]:
    """Scrape targets, addresses by name, every second; gives Prometheus's own address.

    A target's name is its job. ``rules`` are the project's own if there are none given, evaluated every second.
    Skips the test where there is no Prometheus.
    """
    if (program := shutil.which("prometheus")) is None:
        pytest.skip("needs Prometheus in PATH")
    _write_config(folder, targets, _own_rules() if rules is None else rules)
    address = f"{HOST}:{free_port()}"
    with (folder / "prometheus.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            program,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
            stdout=log,
            stderr=log,
        )
    url = f"http://{address}"
    try:
        await until(
            lambda: asyncio.to_thread(_all_up, url, len(targets)), "every target is scraped"
        )
        yield url
    finally:
        process.terminate()
        await process.wait()


def _own_rules() -> Mapping[str, Any]:
    rules: dict[str, Any] = yaml.safe_load(RULES.read_text())
    for group in rules["groups"]:
        group["interval"] = "1s"
    return rules


def _write_config(folder: Path, targets: Mapping[str, str], rules: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rules.yml").write_text(yaml.safe_dump(dict(rules)))
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [
            {"job_name": name, "static_configs": [{"targets": [address]}]}
            for name, address in sorted(targets.items())
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))


def _all_up(url: str, count: int) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/api/v1/targets", timeout=5) as answer:
            targets = json.load(answer)["data"]["activeTargets"]
    except (OSError, urllib.error.URLError):
        return False
    return len(targets) == count and all(one["health"] == "up" for one in targets)
