"""The page of a report: whole by itself, with every number of the document and nothing unescaped."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree as ET

from shashin.cli.load.page import report_page
from shashin.workload.load.rates import parse_schedule
from shashin.workload.load.recorder import OK, Record, Recorder
from shashin.workload.load.report import report_document


def document() -> dict[str, Any]:
    recorder = Recorder(["queries", "events"])
    for number in range(300):
        at = number / 10
        outcome = "<b>broken</b>" if number % 50 == 49 else OK
        recorder.add(Record("queries", at, at, at + 0.05 + number / 1000, outcome))
    return report_document(
        recorder,
        {"queries": parse_schedule("10/s").requests, "events": None},
        run="r1",
        seconds=30.0,
        interrupted=False,
        options={
            "queries": "10/s",
            "query_by": ["photo", "vector"],
            "users": 0,
            "router": "127.0.0.1:1",
        },
    )


def test_the_report_has_rates_asked_and_achieved_and_percentiles() -> None:
    kind = document()["kinds"]["queries"]
    assert (kind["requests"], kind["ok"]) == (300, 294)
    assert kind["asked_rate"] == 10.0
    assert 0.19 < kind["p50"] < 0.21
    assert [window["asked_rate"] for window in kind["windows"][:2]] == [10.0, 10.0]


def test_the_page_loads_nothing_from_elsewhere() -> None:
    page = report_page(document())
    assert not re.findall(r"<(?:script|link|img|iframe)|url\(|https?://", page)


def test_names_from_outside_are_escaped() -> None:
    assert "<b>broken" not in report_page(document())
    assert "&lt;b&gt;broken" in report_page(document())


def test_every_plot_is_well_formed_and_inside_its_box() -> None:
    plots = re.findall(r"<svg.*?</svg>", report_page(document()), re.DOTALL)
    assert len(plots) >= 3
    for plot in plots:
        svg = ET.fromstring(plot)
        _, _, width, height = map(float, svg.attrib["viewBox"].split())
        for line in svg.iter("polyline"):
            for point in line.attrib["points"].split():
                x, y = map(float, point.split(","))
                assert 0 <= x <= width
                assert 0 <= y <= height
