"""Panels and dashboards as data, and the JSON that Grafana reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.timeseries import Panel as Lines
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models

GRAFANA = "11.6"
"""The oldest version that reads the dashboards; newer ones migrate them."""

_WIDTH = 24
_SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")

Unit = Literal["", "s", "bytes", "Bps", "reqps", "ops", "percentunit", "short", "dateTimeFromNow"]


@dataclass(frozen=True)
class Query:
    """One query of a panel, and how its series are named."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """What a dashboard shows at one place."""

    title: str
    queries: Sequence[Query]
    unit: Unit
    means: str
    """What it shows, and what is good."""
    limits: Sequence[tuple[float, Literal["green", "orange", "red"]]] = ()
    """Values from which on it has another colour than the first one, which has none below it: ascending."""
    shows: Literal["lines", "number"] = "lines"
    alerts: Sequence[str] = ()
    """Runbooks that belong to it."""
    full: bool = False
    """Whether its axis begins at 0 and ends at 1."""
    empty_until: str = ""
    """What has to happen before it shows anything, if it is empty in a system that is well."""


@dataclass(frozen=True)
class Row:
    """Panels beside each other, under a title."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Board:
    """A dashboard."""

    uid: str
    title: str
    means: str
    rows: Sequence[Row]
    instances: str = ""
    """PromQL selector of the processes that ``$instance`` chooses from; no such choice if empty."""


def empty_until(board: Board, what: str) -> Board:
    """Return a dashboard of which every panel is empty until something happens."""
    rows = [
        replace(row, panels=[replace(panel, empty_until=what) for panel in row.panels])
        for row in board.rows
    ]
    return replace(board, rows=rows)


def document(board: Board, others: Sequence[Board]) -> str:
    """Return the JSON of a dashboard that links to others."""
    built = (
        dashboards.Dashboard(board.title)
        .uid(board.uid)
        .description(board.means)
        .tags(["shashin"])
        .editable()
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(
            dashboards.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
        )
        .with_variable(
            dashboards.TextBoxVariable("runbooks")
            .label("Address of docs/runbooks")
            .default_value("docs/runbooks")
        )
    )
    if board.instances:
        built = built.with_variable(
            dashboards.QueryVariable("instance")
            .label("Process")
            .datasource(_SOURCE)
            .query(f"label_values({board.instances}, instance)")
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .include_all(True)
            .all_value(".*")
            .multi(True)
        )
    for other in others:
        built = built.link(
            dashboards.DashboardLink(other.title)
            .type(models.DashboardLinkType.LINK)
            .url(f"/d/{other.uid}")
            .keep_time(True)
            .include_vars(False)
        )
    number = 0
    for row in board.rows:
        built = built.with_row(dashboards.Row(row.title))
        for panel in row.panels:
            number += 1
            width = _WIDTH // len(row.panels)
            built = built.with_panel(_panel(panel, number).span(width).height(_height(panel)))
    encoded = json.loads(JSONEncoder(sort_keys=True).encode(built.build()))
    return json.dumps(_numbered(encoded), indent=1, sort_keys=True) + "\n"


def _height(panel: Panel) -> int:
    return 8 if panel.shows == "lines" else 4


def _panel(panel: Panel, number: int) -> Any:
    made: Any = Lines() if panel.shows == "lines" else Stat()
    made = (
        made.id(number)
        .title(panel.title)
        .description(
            f"{panel.means} Empty until {panel.empty_until}." if panel.empty_until else panel.means
        )
        .datasource(_SOURCE)
        .thresholds(_thresholds(panel))
    )
    if panel.unit:
        made = made.unit(panel.unit)
    if panel.full:
        made = made.min(0).max(1)
    for position, query in enumerate(panel.queries):
        target = Dataquery().expr(query.expr).ref_id(chr(ord("A") + position)).datasource(_SOURCE)
        if query.legend:
            target = target.legend_format(query.legend)
        made = made.with_target(target.instant() if panel.shows == "number" else target.range())
    if panel.shows == "lines":
        made = (
            made.line_width(1)
            .fill_opacity(5)
            .show_points(common.VisibilityMode.NEVER)
            .legend(
                common_builders.VizLegendOptions()
                .display_mode(common.LegendDisplayMode.LIST)
                .placement(common.LegendPlacement.BOTTOM)
                .show_legend(True)
                .calcs([])
            )
            .tooltip(
                common_builders.VizTooltipOptions()
                .mode(common.TooltipDisplayMode.MULTI)
                .sort(common.SortOrder.DESCENDING)
            )
        )
        if panel.limits:
            style = common.GraphThresholdsStyleMode.DASHED
            made = made.thresholds_style(common_builders.GraphThresholdsStyleConfig().mode(style))
    else:
        made = made.color_mode(common.BigValueColorMode.BACKGROUND_SOLID).reduce_options(
            common_builders.ReduceDataOptions().calcs(["lastNotNull"])
        )
    if panel.alerts:
        made = made.links(
            [
                dashboards.DashboardLink(f"Runbook: {alert}")
                .type(models.DashboardLinkType.LINK)
                .url(f"${{runbooks}}/{alert}.md")
                for alert in panel.alerts
            ]
        )
    return made


def _thresholds(panel: Panel) -> Any:
    steps = [models.Threshold(value=None, color="green")]
    if panel.limits:
        colours = ["green" if panel.limits[0][1] != "green" else "red"]
        steps = [models.Threshold(value=None, color=colours[0])]
        steps += [models.Threshold(value=value, color=colour) for value, colour in panel.limits]
    return dashboards.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _numbered(board: dict[str, Any]) -> dict[str, Any]:
    """Give rows numbers as well: Grafana wants one for each panel."""
    taken = {panel["id"] for panel in board["panels"] if panel.get("id")}
    following = max(taken, default=0) + 1
    for panel in board["panels"]:
        if not panel.get("id"):
            panel["id"], following = following, following + 1
    return board
