"""Each alert fires when it should and not before, as Prometheus evaluates it (promtool)."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from monitoring.model import Alert
from monitoring.objectives import OBJECTIVES, SEARCH
from monitoring.rules import groups, rule_file

ROOT = Path(__file__).parents[3]

Series = Mapping[str, str]
"""Series to values, one a minute, in promtool's notation."""


@dataclass(frozen=True)
class Case:
    """What an alert fires for, and what it does not."""

    fires: Series
    quiet: Series
    minutes: int = 20
    """After which both are looked at."""


ANSWERED = f'shashin_rpc_answers_total{{instance="r",{SEARCH},status="%s"}}'
ROUTER = 'shashin_service_info{instance="r",service="router"}'
INDEX_SERVER = f'shashin_rpc_answers_total{{instance="i",{SEARCH},status="OK"}}'
TOTAL = 'shashin_router_search_seconds_count{stage="total"}'
EVENTS = 'shashin_pipeline_since_event_seconds_count{stage="searchable"}'
IN_TIME = 'shashin_pipeline_since_event_seconds_bucket{stage="searchable",le="5.0"}'
DAYS = 3 * 24 * 60
EVENTS_TOPIC = '{topic="listings.events"}'

CASES = {
    # 2 of 100 fail: 20 times the budget, in the hour and in the last five minutes.
    "ShashinAvailabilityBudgetBurnFast": Case(
        {ANSWERED % "OK": "0+980x70", ANSWERED % "UNAVAILABLE": "0+20x70"},
        # Faults of the callers are no failures, and a failure that is over does not wake anybody.
        {
            ANSWERED % "OK": "0+980x70",
            ANSWERED % "INVALID_ARGUMENT": "0+500x70",
            ANSWERED % "UNAVAILABLE": "0+40x50 2000x20",
        },
        65,
    ),
    "ShashinAvailabilityBudgetBurnSlow": Case(
        {ANSWERED % "OK": "0+990x400", ANSWERED % "INTERNAL": "0+10x400"},
        {ANSWERED % "OK": "0+998x400", ANSWERED % "INTERNAL": "0+2x400"},
        370,
    ),
    "ShashinAvailabilityBudgetBurnSteady": Case(
        {ANSWERED % "OK": f"0+998x{DAYS}", ANSWERED % "INTERNAL": f"0+2x{DAYS}"},
        {ANSWERED % "OK": f"0+9999x{DAYS}", ANSWERED % "INTERNAL": f"0+1x{DAYS}"},
        DAYS,
    ),
    "ShashinCompletenessBudgetBurnFast": Case(
        {TOTAL: "0+1000x70", "shashin_router_incomplete_answers_total": "0+20x70"},
        {TOTAL: "0+1000x70", "shashin_router_incomplete_answers_total": "0+1x70"},
        65,
    ),
    "ShashinCompletenessBudgetBurnSlow": Case(
        {TOTAL: "0+1000x400", "shashin_router_incomplete_answers_total": "0+10x400"},
        {TOTAL: "0+1000x400"},
        370,
    ),
    "ShashinCompletenessBudgetBurnSteady": Case(
        {TOTAL: f"0+1000x{DAYS}", "shashin_router_incomplete_answers_total": f"0+2x{DAYS}"},
        {TOTAL: f"0+10000x{DAYS}", "shashin_router_incomplete_answers_total": f"0+1x{DAYS}"},
        DAYS,
    ),
    "ShashinFreshnessBudgetBurnFast": Case(
        {EVENTS: "0+100x70", IN_TIME: "0+70x70"},
        {EVENTS: "0+100x70", IN_TIME: "0+95x70"},
        65,
    ),
    "ShashinFreshnessBudgetBurnSlow": Case(
        {EVENTS: "0+100x400", IN_TIME: "0+90x400"},
        {EVENTS: "0+100x400", IN_TIME: "0+97x400"},
        370,
    ),
    "ShashinFreshnessBudgetBurnSteady": Case(
        {EVENTS: f"0+100x{DAYS}", IN_TIME: f"0+98x{DAYS}"},
        {EVENTS: f"0+1000x{DAYS}", IN_TIME: f"0+995x{DAYS}"},
        DAYS,
    ),
    "ShashinGhosts": Case(
        {'shashin_canary_failures_total{kind="not_gone"}': "0x10 1x20"},
        {
            'shashin_canary_failures_total{kind="not_gone"}': "1x30",
            'shashin_canary_failures_total{kind="not_found"}': "0+1x30",
        },
    ),
    "ShashinCanaryFailing": Case(
        {"shashin_canary_last_success_timestamp_seconds": "60x30"},
        {"shashin_canary_last_success_timestamp_seconds": "0+60x30"},
    ),
    "ShashinPartitionNotIndexed": Case(
        {"shashin_router_unknown_partitions": "1x30"},
        {"shashin_router_unknown_partitions": "0x17 1 0x20"},
    ),
    "ShashinSearchesIncomplete": Case(
        {
            'shashin_router_coverage_complete{instance="a"}': "0x30",
            'shashin_router_coverage_complete{instance="b"}': "1x30",
            "shashin_router_missing_offsets": "12x30",
        },
        {"shashin_router_coverage_complete": "1x30"},
    ),
    "ShashinNoRouter": Case({"up": "1x30"}, {"shashin_router_coverage_complete": "0x30"}),
    "ShashinRecallLow": Case(
        {
            'shashin_recall_expected_hits_total{tier="daily"}': "0+100x90",
            'shashin_recall_found_hits_total{tier="daily"}': "0+90x90",
            'shashin_recall_expected_hits_total{tier="live"}': "0+100x90",
            'shashin_recall_found_hits_total{tier="live"}': "0+99x90",
        },
        {
            'shashin_recall_expected_hits_total{tier="daily"}': "0+100x90",
            'shashin_recall_found_hits_total{tier="daily"}': "0+98x90",
        },
        80,
    ),
    "ShashinConsumerStuck": Case(
        {
            f"shashin_consumer_lag_records{EVENTS_TOPIC}": "5x40",
            f"shashin_consumed_records_total{EVENTS_TOPIC}": "100x40",
        },
        {
            f"shashin_consumer_lag_records{EVENTS_TOPIC}": "5x40",
            f"shashin_consumed_records_total{EVENTS_TOPIC}": "0+1x40",
        },
        30,
    ),
    "ShashinConsumptionPaused": Case(
        {f"shashin_consumption_paused{EVENTS_TOPIC}": "0x10 1x20"},
        {f"shashin_consumption_paused{EVENTS_TOPIC}": "0x30"},
    ),
    "ShashinBatchHeldBack": Case(
        {f"shashin_undecodable_batches{EVENTS_TOPIC}": "1x30"},
        {f"shashin_undecodable_batches{EVENTS_TOPIC}": "0x30"},
    ),
    "ShashinLagNearRetention": Case(
        {
            f"shashin_consumer_lag_seconds{EVENTS_TOPIC}": "500000x30",
            f"shashin_topic_retention_seconds{EVENTS_TOPIC}": "604800x30",
        },
        # A topic that retains for ever overtakes nobody.
        {
            f"shashin_consumer_lag_seconds{EVENTS_TOPIC}": "500000x30",
            f"shashin_topic_retention_seconds{EVENTS_TOPIC}": "-1x30",
        },
    ),
    "ShashinRecordsLost": Case(
        {f"shashin_lost_records_total{EVENTS_TOPIC}": "0x10 7x20"},
        {f"shashin_lost_records_total{EVENTS_TOPIC}": "7x30"},
    ),
    "ShashinDeadLettersRising": Case(
        {'shashin_dead_letters_total{topic="listings.events",reason="InvalidEvent"}': "0+2x30"},
        {'shashin_dead_letters_total{topic="listings.events",reason="InvalidEvent"}': "0x10 3x20"},
    ),
    "ShashinBadShards": Case(
        {'shashin_index_server_bad_shards{instance="index-server-daily:8080"}': "2x30"},
        {'shashin_index_server_bad_shards{instance="index-server-daily:8080"}': "0x30"},
    ),
    "ShashinSealingStuck": Case(
        {"shashin_indexer_set_aside_shards": "1x30", "shashin_indexer_reading_paused": "0x30"},
        {"shashin_indexer_set_aside_shards": "0x30", "shashin_indexer_reading_paused": "0x30"},
    ),
    "ShashinBuildsFailed": Case(
        {'shashin_controller_builds{tier="daily",phase="Failed"}': "1x30"},
        {'shashin_controller_builds{tier="daily",phase="Running"}': "1x30"},
    ),
    "ShashinServingNotReady": Case(
        {'shashin_controller_servings{tier="daily",reason="ImagePullFailed"}': "1x30"},
        {'shashin_controller_servings{tier="daily",reason="Rolling"}': "1x30"},
    ),
    "ShashinNoController": Case(
        {"shashin_controller_leading": "0x30"},
        # One works and another waits; without Kubernetes there is none at all.
        {
            'shashin_controller_leading{pod="a"}': "1x30",
            'shashin_controller_leading{pod="b"}': "0x30",
        },
    ),
    "ShashinTargetDown": Case(
        {'up{job="router",instance="router:8080"}': "0x30"},
        {'up{job="router",instance="router:8080"}': "1x17 0 1x20"},
    ),
    "ShashinProblem": Case(
        {'shashin_problems{job="router",instance="router:8080"}': "1x30"},
        {'shashin_problems{job="router",instance="router:8080"}': "0x30"},
    ),
    "ShashinDiskAlmostFull": Case(
        {
            'shashin_folder_free_bytes{folder="work"}': "5x30",
            'shashin_folder_size_bytes{folder="work"}': "100x30",
        },
        {
            'shashin_folder_free_bytes{folder="work"}': "50x30",
            'shashin_folder_size_bytes{folder="work"}': "100x30",
        },
    ),
    "ShashinClockSkew": Case(
        {"shashin_kubernetes_clock_skew_seconds": "-9x30"},
        {"shashin_kubernetes_clock_skew_seconds": "2x30"},
    ),
}


def alerts() -> dict[str, Alert]:
    return {rule.name: rule for g in groups() for rule in g.rules if isinstance(rule, Alert)}


def test_every_alert_has_a_case() -> None:
    assert set(CASES) == set(alerts())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("state", ["fires", "quiet"])
def test_an_alert_fires_when_it_should_and_not_before(
    name: str, state: str, tmp_path: Path
) -> None:
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("needs promtool, which is part of Prometheus")
    case = CASES[name]
    # Calls of a router to index servers are no searches of users.
    every: Series = {ROUTER: f"1x{case.minutes}", INDEX_SERVER: f"0+99999x{case.minutes}"}
    series = {**every, **(case.fires if state == "fires" else case.quiet)}
    expected = 1 if state == "fires" else 0
    (tmp_path / "rules.yml").write_text(rule_file())
    test = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": s, "values": v} for s, v in series.items()],
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)',
                        "eval_time": f"{case.minutes}m",
                        "exp_samples": [{"labels": "{}", "value": expected}],
                    }
                ],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    ended = subprocess.run(
        [promtool, "test", "rules", "test.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("alert", alerts().values(), ids=lambda alert: alert.name)
def test_every_alert_has_a_runbook_that_says_what_it_means_and_what_to_do(alert: Alert) -> None:
    text = (ROOT / alert.runbook_path).read_text()
    for heading in ("## What it means for users", "## How to look", "## What to do"):
        assert heading in text, f"{alert.runbook_path} has no {heading!r}"


def test_no_runbook_is_left_of_an_alert_that_is_gone() -> None:
    kept = {ROOT / alert.runbook_path for alert in alerts().values()}
    assert set((ROOT / "docs/runbooks").glob("Shashin*.md")) == kept


def test_an_objective_records_every_window_that_its_alerts_use() -> None:
    for objective in OBJECTIVES:
        recorded = {record.name for record in objective.records()}
        for alert in objective.alerts():
            used = {word for word in alert.expr.split() if word.startswith("shashin:")}
            assert used
            assert used <= recorded
