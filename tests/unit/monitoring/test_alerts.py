"""Each alert fires when it should and not before, as Prometheus evaluates it (promtool)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.model import Alert, Record
from monitoring.objectives import OBJECTIVES, SEARCH
from monitoring.rules import groups, rule_file
from tests.support.promtool import promtool

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
LONG = 30 * 60
"""Minutes. Of more than 36 hours, promtool's storage compacts a part in the background, which samples and queries
do not wait for."""
LAG = 'shashin_indexer_stage_lag_seconds{instance="%s",topic="listings.events"}'
RETENTION = 'shashin_topic_retention_seconds{instance="%s",topic="listings.events"}'
OF_A = '{instance="a",topic="listings.events",reason="InvalidEvent"}'
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
        {ANSWERED % "OK": f"0+998x{LONG}", ANSWERED % "INTERNAL": f"0+2x{LONG}"},
        {ANSWERED % "OK": f"0+9999x{LONG}", ANSWERED % "INTERNAL": f"0+1x{LONG}"},
        LONG,
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
        {TOTAL: f"0+1000x{LONG}", "shashin_router_incomplete_answers_total": f"0+2x{LONG}"},
        # Too many for the last six hours, not for the days before.
        {
            TOTAL: f"0+1000x{LONG}",
            "shashin_router_incomplete_answers_total": f"0x{LONG - 360} 0+2x360",
        },
        LONG,
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
        {EVENTS: f"0+100x{LONG}", IN_TIME: f"0+98x{LONG}"},
        {EVENTS: f"0+1000x{LONG}", IN_TIME: f"0+995x{LONG}"},
        LONG,
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
        # The consumer hangs or is down: it tells nothing itself.
        {
            'shashin_indexer_stage_lag_seconds{stage="downloader",topic="listings.events"}': "0+60x40"
        },
        {
            # It is far behind, and works.
            'shashin_indexer_stage_lag_seconds{stage="downloader",topic="listings.events"}': "0+60x40",
            f"shashin_consumed_records_total{EVENTS_TOPIC}": "0+1x40",
            'shashin_indexer_stage_lag_seconds{stage="indexer",topic="vectors.embedded"}': "0+60x40",
            "shashin_indexer_records_total": "0+1x40",
            "shashin_indexer_skipped_records_total": "0x40",
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
            LAG % "a": "500000x30",
            RETENTION % "a": "604800x30",
            # As another process knew it when it started.
            RETENTION % "b": "6048000x30",
        },
        # A topic that retains for ever overtakes nobody.
        {LAG % "a": "500000x30", RETENTION % "a": "-1x30", RETENTION % "b": "60x30"},
    ),
    "ShashinRecordsLost": Case(
        # The first records that are lost begin the series, of a process that runs or has just begun.
        {f"shashin_lost_records_total{OF_A}": "_x70 7x20", 'up{instance="a"}': "1x90"},
        {f"shashin_lost_records_total{OF_A}": "7x90", 'up{instance="a"}': "1x90"},
        80,
    ),
    "ShashinDeadLettersRising": Case(
        {f"shashin_dead_letters_total{OF_A}": "_x30 11x20", 'up{instance="a"}': "1x50"},
        {f"shashin_dead_letters_total{OF_A}": "_x30 100x20", 'up{instance="b"}': "1x50"},
        40,
    ),
    "ShashinBadShards": Case(
        {'shashin_index_server_bad_shards{instance="index-server-daily:8080"}': "2x30"},
        {'shashin_index_server_bad_shards{instance="index-server-daily:8080"}': "0x30"},
    ),
    "ShashinSealingStuck": Case(
        {"shashin_indexer_set_aside_shards": "1x30", "shashin_indexer_reading_paused": "0x30"},
        {
            "shashin_indexer_set_aside_shards": "0x30",
            "shashin_indexer_reading_paused": "0x30",
            "shashin_indexer_seal_lag_seconds": "0x20 400x10",
        },
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
    # Without TLS it is 0. Promtool's time begins at 0.
    "ShashinCertificateExpires": Case(
        {'shashin_certificate_expires_seconds{job="router",instance="a"}': f"{6 * 86_400}x30"},
        {
            'shashin_certificate_expires_seconds{job="router",instance="a"}': f"{8 * 86_400}x30",
            'shashin_certificate_expires_seconds{job="router",instance="b"}': "0x30",
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
    case = CASES[name]
    series = case.fires if state == "fires" else case.quiet
    check(name, series, minutes=case.minutes, fires=state == "fires", folder=tmp_path)


def test_prometheus_reads_the_file_of_all_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(rule_file())
    promtool("check", "rules", "rules.yml", folder=tmp_path)


def check(name: str, given: Series, *, minutes: int, fires: bool, folder: Path) -> None:
    """Fail unless Prometheus has the alert fire, or not, after so many minutes of these series."""
    # Calls of a router to index servers are no searches of users.
    every: Series = {ROUTER: f"1x{minutes}", INDEX_SERVER: f"0+99999x{minutes}"}
    series = {**every, **given}
    (folder / "rules.yml").write_text(yaml.safe_dump({"groups": groups_of(name)}))
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
                        "eval_time": f"{minutes}m",
                        "exp_samples": [{"labels": "{}", "value": int(fires)}],
                    }
                ],
            }
        ],
    }
    (folder / "test.yml").write_text(yaml.safe_dump(test))
    promtool("test", "rules", "test.yml", folder=folder)


def groups_of(name: str) -> list[dict[str, Any]]:
    """Return an alert with the records that it reads, to be evaluated as often as a test says."""
    found = []
    for group in groups():
        alert = [rule for rule in group.rules if isinstance(rule, Alert) and rule.name == name]
        read = [r for r in group.rules if isinstance(r, Record) and r.name in alerts()[name].expr]
        if alert or read:
            found.append(replace(group, rules=[*alert, *read], interval="").document())
    return found


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


EVERY_WAY = {
    "ShashinConsumerStuck": [
        # The indexer itself.
        {
            'shashin_indexer_stage_lag_seconds{stage="indexer",topic="vectors.embedded"}': "0+60x40",
            "shashin_indexer_records_total": "50x40",
            "shashin_indexer_skipped_records_total": "0x40",
        },
        # Its last records were long ago.
        {
            'shashin_indexer_stage_lag_seconds{stage="downloader",topic="listings.events"}': "0+60x40",
            f"shashin_consumed_records_total{EVENTS_TOPIC}": "9x40",
        },
    ],
    "ShashinRecordsLost": [
        {f"shashin_lost_records_total{OF_A}": "0x10 7x30"},
        # A process that has begun since.
        {
            f"shashin_lost_records_total{OF_A}": "_x35 7x5",
            'process_start_time_seconds{instance="a"}': "_x35 2090x5",
        },
    ],
    "ShashinDeadLettersRising": [
        {f"shashin_dead_letters_total{OF_A}": "0+2x40"},
        {
            f"shashin_dead_letters_total{OF_A}": "_x35 11x5",
            'process_start_time_seconds{instance="a"}': "_x35 2090x5",
        },
    ],
    "ShashinSealingStuck": [
        {"shashin_indexer_reading_paused": "1x40"},
        {"shashin_indexer_seal_lag_seconds": "0+60x40"},
    ],
}


@pytest.mark.parametrize(
    ("name", "series"), [(name, series) for name, every in EVERY_WAY.items() for series in every]
)
def test_an_alert_fires_for_every_cause_that_it_is_for(
    name: str, series: Series, tmp_path: Path
) -> None:
    check(name, series, minutes=38, fires=True, folder=tmp_path)
