"""The catalogue follows Prometheus' conventions, is complete, and agrees with the code that counts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import grpc
import pytest
from prometheus_client import REGISTRY

from docs.generate_metrics import areas, exposed_areas
from services.embedder.batching import Kind
from services.indexer.log_watch import stages_before
from services.router.endpoints import Status
from shashin.builds.status import Phase
from shashin.discovery.protocol import Role
from shashin.kafka.dead_letters import Scope
from shashin.kafka.topics import DEAD_LETTER_TOPICS, TOPICS
from shashin.metrics import controller, embedder, indexer, kafka, rpc
from shashin.metrics import router as router_metrics
from shashin.metrics.core import Labelled, counter, definitions
from shashin.metrics.definitions import Definition, Label
from shashin.metrics.labels import GRPC_STATUSES, TOPIC
from shashin.metrics.process import FROM_THE_CLIENT_LIBRARY
from shashin.offsets.cut import CutReason
from shashin.v1 import embed_pb2, index_pb2, search_pb2

ROOT = Path(__file__).parents[3]
SERVICES = sorted(path.parent.name for path in (ROOT / "services").glob("*/__main__.py"))
MEANING = "What it is for a test."


def test_every_metric_is_in_one_area() -> None:
    in_areas = [definition.name for area in areas() for definition in area.definitions]
    assert sorted(in_areas) == sorted(definition.name for definition in definitions())
    assert len(in_areas) == len(set(in_areas)) > 90


@pytest.mark.parametrize("area", areas(), ids=lambda area: area.name)
def test_an_area_says_in_a_sentence_what_it_is_about(area: Any) -> None:
    assert re.fullmatch(r"[A-Z].{15,}\.", area.meaning)
    assert area.definitions


@pytest.mark.parametrize(
    ("name", "broken", "problem"),
    [
        ("requests", {}, "prefix shashin_"),
        ("shashin_Requests", {}, "snake case"),
        ("shashin_requests_total", {}, "ends with _total"),
        ("shashin_request_count", {}, "ends with _count"),
        ("shashin_wait_ms", {}, "base unit"),
        ("shashin_wait_minutes_seconds", {"unit": "seconds"}, "base unit"),
        ("shashin_wait", {"unit": "seconds"}, "does not end with its unit, seconds"),
        ("shashin_size_bytes", {}, "a unit, bytes, that it does not declare"),
        ("shashin_size", {"meaning": "the size"}, "not a sentence"),
        ("shashin_size", {"meaning": "The size\nof it."}, "not a sentence"),
        ("shashin_size", {"type": "histogram"}, "buckets"),
        ("shashin_size", {"buckets": (1.0, 2.0)}, "buckets"),
        ("shashin_size", {"type": "histogram", "buckets": (2.0, 1.0)}, "do not ascend"),
        ("shashin_size", {"type": "histogram", "buckets": (1.0, 1.0)}, "do not ascend"),
        ("shashin_size", {"type": "histogram", "buckets": (1.0, float("inf"))}, "finite"),
        (
            "shashin_size",
            {"type": "histogram", "buckets": tuple(map(float, range(21)))},
            "at most 20",
        ),
        (
            "shashin_size",
            {"labels": (Label("kind", "a kind", at_most=2), Label("kind", "it", at_most=2))},
            "a label twice",
        ),
        (
            "shashin_size",
            {"labels": (Label("kind", "a kind", at_most=100), Label("what", "it", at_most=100))},
            "can have 10201 series",
        ),
    ],
)
def test_a_definition_that_breaks_a_convention_is_refused(
    name: str, broken: dict[str, Any], problem: str
) -> None:
    definition: dict[str, Any] = {"type": "gauge", "meaning": MEANING, **broken}
    with pytest.raises(ValueError, match=problem):
        Definition(name, **definition)


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        ({"name": "Kind", "at_most": 3}, "snake case"),
        ({"name": "le", "at_most": 3}, "reserved"),
        ({"name": "pod", "at_most": 3}, "reserved"),
        ({"name": "listing", "at_most": 3}, "per listing"),
        ({"name": "listing_id", "at_most": 3}, "per listing"),
        ({"name": "photo_uri", "at_most": 3}, "per listing"),
        ({"name": "what", "meaning": "a listing id", "at_most": 3}, "per listing"),
        ({"name": "kind"}, "not bounded"),
        ({"name": "kind", "values": ("a",), "at_most": 3}, "not bounded"),
        ({"name": "kind", "values": ("a", "a")}, "twice"),
        ({"name": "kind", "values": ("a\nb",)}, "not printable"),
        ({"name": "kind", "meaning": "", "at_most": 3}, "no meaning"),
    ],
)
def test_a_label_without_a_bound_or_of_a_listing_is_refused(
    label: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        Label(**{"meaning": "a kind", **label})


def test_a_second_metric_of_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="is defined twice"):
        counter("shashin_retries", MEANING)


def values_of(metric: Labelled[Any], name: str) -> set[str]:
    (label,) = (label for label in metric.definition.labels if label.name == name)
    return set(label.values)


def test_the_values_of_labels_are_those_that_the_code_has() -> None:
    assert set(GRPC_STATUSES) == {status.name for status in grpc.StatusCode}
    assert values_of(indexer.SHARDS_SEALED, "cut") == set(CutReason)
    assert values_of(controller.BUILDS, "phase") == set(get_args(Phase))
    assert values_of(kafka.DEAD_LETTERS, "scope") == set(get_args(Scope))
    assert values_of(embedder.PHOTOS, "kind") == set(Kind)
    assert values_of(router_metrics.ENDPOINTS, "state") == set(get_args(Status))
    assert values_of(rpc.CLIENT_ANSWERS, "role") == set(get_args(Role))
    stages = {stage.name for stage in stages_before("any")}
    assert values_of(indexer.STAGE_LAG, "stage") == {*stages, "indexer"}


def test_the_bounds_of_labels_have_room_for_what_the_code_has() -> None:
    assert len(TOPICS) + len(DEAD_LETTER_TOPICS) <= TOPIC.at_most
    methods = {
        method.name
        for file in (embed_pb2, index_pb2, search_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    (method,) = (label for label in rpc.LATENCY.definition.labels if label.name == "method")
    assert len({*methods, "Check", "Watch", "List"}) <= method.at_most
    assert len(definitions()) <= 256, "the bound of shashin_metrics_other_values_total"


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_exposes_the_areas_that_the_page_says_and_nothing_else(service: str) -> None:
    names = (
        f"import services.{service}.__main__\n"
        "from prometheus_client import REGISTRY\n"
        "from shashin.metrics.core import definitions\n"
        "print(*(d.name for d in definitions()))\n"
        "print(*(family.name for family in REGISTRY.collect()))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", names], cwd=ROOT, capture_output=True, text=True, check=True
    )
    defined, families = (set(line.split()) for line in run.stdout.splitlines()[-2:])
    exposed = exposed_areas()[service]
    documented = {d.name for area in areas() if area.name in exposed for d in area.definitions}
    # An area that is imported only when it is needed may be missing at the start.
    assert defined <= documented
    assert {area.name for area in areas() if {d.name for d in area.definitions} & defined} >= (
        exposed - {"kubernetes"}
    )
    names_added = FROM_THE_CLIENT_LIBRARY.keys()
    from_library = names_added | {name.removesuffix("_total") for name in names_added}
    assert families - defined <= from_library


def named_in(*patterns: str) -> set[tuple[str, str]]:
    """Return the metrics that files name, each with the file."""
    files = [path for pattern in patterns for path in ROOT.glob(pattern)]
    assert files
    return {
        (path.name, name)
        for path in files
        for name in re.findall(r"\bshashin_[a-z0-9_]+", path.read_text(encoding="utf-8"))
    }


def test_documents_and_alerts_name_only_metrics_of_the_catalogue() -> None:
    known = {definition.exported_name for definition in definitions()}
    known |= {
        f"{definition.name}_{suffix}"
        for definition in definitions()
        if definition.type == "histogram"
        for suffix in ("bucket", "sum", "count")
    }
    no_metrics = {"shashin_catalogue"}
    named = named_in(
        *("docs/**/*.md", "README.md", "k8s/**/*.yaml"),
        *("monitoring/prometheus/**/*.yml", "monitoring/dashboards/*.json"),
    )
    assert {(file, name) for file, name in named if name not in known | no_metrics} == set()


def test_what_the_client_library_adds_is_named() -> None:
    ours = {definition.name for definition in definitions()}
    exported = {
        family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
        for family in REGISTRY.collect()
        if family.name not in ours and not family.name.startswith("test_")
    }
    assert exported <= FROM_THE_CLIENT_LIBRARY.keys()
