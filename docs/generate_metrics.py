"""Generates ``docs/metrics.md`` from the catalogue; ``--check`` only checks whether it is stale."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import grimp

import shashin.metrics
from shashin.metrics.core import definition_of
from shashin.metrics.definitions import Definition, Label
from shashin.metrics.process import FROM_THE_CLIENT_LIBRARY

PAGE = Path(__file__).with_name("metrics.md")
ROOT = PAGE.parents[1]
_NO_AREAS = {"core", "definitions", "labels", "quick_histogram"}
_LISTED_VALUES = 8
"""Of a label with more, only the number is on the page."""

HEAD = """# Metrics

Every service answers `/metrics` on `SHASHIN_HTTP_PORT`, in Prometheus' text format or, if asked for it as
Prometheus does, in OpenMetrics. This page is generated from the catalogue, [shashin/metrics](../shashin/metrics)
(`make docs`); no metric is defined anywhere else. Which ones to look at, and which to alert on, is in
[What to watch](operations.md#what-to-watch).

- A service exposes the areas that its code imports. A counter with few and known labels begins at 0;
  another metric with labels appears once something was counted.
- A **counter** only grows, until its process ends: `rate(NAME[5m])`. A **gauge** is as of the scrape. A
  **histogram** is `NAME_bucket`, `NAME_sum` and `NAME_count`:
  `histogram_quantile(0.99, sum by (le) (rate(NAME_bucket[5m])))`.
- Without a unit, a metric is a number of things, or 0 and 1.
- Every label is bounded, by its values or by their number; anything beyond is counted under `other`, and in
  `shashin_metrics_other_values_total`. The last column is how many series a process can have at most.
"""


@dataclass(frozen=True)
class Area:
    """A module of the catalogue."""

    name: str
    meaning: str
    """One sentence."""
    definitions: tuple[Definition, ...]


def areas() -> list[Area]:
    """Return the areas of the catalogue, by name."""
    found = []
    for module in pkgutil.iter_modules(shashin.metrics.__path__):
        if module.name not in _NO_AREAS:
            area = importlib.import_module(f"shashin.metrics.{module.name}")
            definitions = [d for value in vars(area).values() if (d := definition_of(value))]
            meaning = " ".join((area.__doc__ or "").split())
            found.append(Area(module.name, meaning, tuple(definitions)))
    return found


def exposed_areas() -> Mapping[str, frozenset[str]]:
    """Return the names of the areas that each service imports, directly or not."""
    graph = grimp.build_graph(
        "shashin", "services", exclude_type_checking_imports=True, cache_dir=None
    )
    services = sorted(path.parent.name for path in (ROOT / "services").glob("*/__main__.py"))
    return {
        service: frozenset(
            name.rpartition(".")[2]
            for name in graph.find_upstream_modules(f"services.{service}", as_package=True)
            if name.startswith("shashin.metrics.")
        )
        - _NO_AREAS
        for service in services
    }


def _label(label: Label) -> str:
    if label.at_most:
        return f"`{label.name}`: {label.meaning} (at most {label.at_most})"
    if len(label.values) > _LISTED_VALUES:
        return f"`{label.name}`: {label.meaning} ({len(label.values)})"
    return f"`{label.name}`: " + ", ".join(
        f"`{value}`" if value else "none" for value in label.values
    )


def _row(definition: Definition) -> str:
    cells = (
        f"`{definition.exported_name}`",
        definition.type,
        definition.unit,
        "; ".join(map(_label, definition.labels)),
        definition.meaning.replace("|", "\\|"),
        str(definition.max_series),
    )
    return f"| {' | '.join(cells)} |"


def _section(area: Area, services: list[str]) -> Iterator[str]:
    yield f"\n## {area.name.replace('_', ' ').capitalize()}\n"
    exposed = ", ".join(name.replace("_", " ") for name in services)
    yield area.meaning + (f" Exposed by: {exposed}.\n" if exposed else "\n")
    yield "| name | type | unit | labels | meaning | series |"
    yield "|---|---|---|---|---|---|"
    yield from map(_row, area.definitions)


def page() -> str:
    """Return the whole page."""
    lines = [HEAD.rstrip("\n")]
    exposed = exposed_areas()
    for area in areas():
        services = [name for name, names in exposed.items() if area.name in names]
        lines += _section(area, services)
        if area.name == "process":
            lines += ["", "The client library adds:\n", "| name | meaning |", "|---|---|"]
            lines += [
                f"| `{name}` | {meaning} |" for name, meaning in FROM_THE_CLIENT_LIBRARY.items()
            ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page, or check it."""
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit(f"{PAGE.name} is stale; run `make docs`")


if __name__ == "__main__":
    main()
