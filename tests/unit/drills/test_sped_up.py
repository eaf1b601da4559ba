"""Rules whose durations are divided stay the same rules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.rules import rule_file
from tests.drills.sped_up import INTERVAL, sped_up
from tests.support.promtool import promtool

FACTORS = {group["name"]: 60.0 for group in yaml.safe_load(rule_file())["groups"]}


def one(expr: str, **fields: str) -> dict[str, Any]:
    rule = {"alert": "A", "expr": expr, **fields}
    return {"groups": [{"name": "g", "rules": [rule]}]}


def of_one(expr: str, factor: float, **fields: str) -> dict[str, Any]:
    (group,) = sped_up(one(expr, **fields), {"g": factor})["groups"]
    (rule,) = group["rules"]
    assert group["interval"] == INTERVAL
    found: dict[str, Any] = rule
    return found


@pytest.mark.parametrize(
    ("expr", "divided_by_60"),
    [
        ("rate(x_total[1h]) > 5", "rate(x_total[60000ms]) > 5"),
        ("increase(x_total[15m]) > 10", "increase(x_total[15000ms]) > 10"),
        ("rate(x_total[1m])", "rate(x_total[5000ms])"),
        ("rate(x_total[2s])", "rate(x_total[2000ms])"),
        ("x unless x offset 1h", "x unless x offset 60000ms"),
        ("time() - max(x_timestamp_seconds) > 300", "time() - max(x_timestamp_seconds) > 5"),
        ("max(x_lag_seconds) > 600", "max(x_lag_seconds) > 10"),
        ("abs(x_skew_seconds) > 5", "abs(x_skew_seconds) > 5"),
        ('x_bucket{le="5.0"} / 2 < 0.95', 'x_bucket{le="5.0"} / 2 < 0.95'),
        ("shashin:freshness:bad_ratio_rate5m > 0.1", "shashin:freshness:bad_ratio_rate5m > 0.1"),
    ],
)
def test_durations_are_divided_and_nothing_else(expr: str, divided_by_60: str) -> None:
    assert of_one(expr, 60)["expr"] == divided_by_60


def test_for_is_divided_and_what_has_none_gets_none() -> None:
    assert of_one("x > 0", 60, **{"for": "5m"})["for"] == "5000ms"
    assert of_one("x > 0", 60, **{"for": "1h30m"})["for"] == "90000ms"
    assert "for" not in of_one("x > 0", 60)


def test_a_duration_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match="no duration"):
        of_one("x > 0", 60, **{"for": "5 minutes"})


def test_a_group_without_a_factor_keeps_its_durations() -> None:
    before = one("rate(x[1h])", **{"for": "5m"})
    (group,) = sped_up(before, {})["groups"]
    assert group["rules"] == before["groups"][0]["rules"]


def test_of_the_real_rules_every_long_duration_is_divided_and_every_name_stays() -> None:
    before = yaml.safe_load(rule_file())
    after = sped_up(before, FACTORS)
    assert before == yaml.safe_load(rule_file()), "the rules that were given are not changed"
    long = re.compile(r"\d(m|h|d)\]|offset \d+[mhd]\b")
    for group, faster in zip(before["groups"], after["groups"], strict=True):
        for rule, shorter in zip(group["rules"], faster["rules"], strict=True):
            assert not long.search(shorter["expr"])
            for kept in ("alert", "record", "labels", "annotations"):
                assert rule.get(kept) == shorter.get(kept)
            assert ("for" in rule) == ("for" in shorter)
            names = r"[a-z_:]{5,}"
            assert re.findall(names, rule["expr"]) == re.findall(names, shorter["expr"])


def test_prometheus_takes_them(tmp_path: Path) -> None:
    rules = sped_up(yaml.safe_load(rule_file()), FACTORS)
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
    promtool("check", "rules", "rules.yml", folder=tmp_path)
