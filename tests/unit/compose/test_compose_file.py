"""What docker-compose.yml promises, read from the file itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from compose.stack import ports

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docker-compose.yml").read_text()
FILE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
DEFAULT = {name: one for name, one in SERVICES.items() if "profiles" not in one}
ONE_SHOT = {name for name, one in SERVICES.items() if one["restart"] == "no"}


def mebibytes(limit: str) -> int:
    assert limit.endswith("m")
    return int(limit[:-1])


@pytest.mark.parametrize("name", SERVICES)
def test_every_port_is_bound_to_the_loopback_and_can_be_changed(name: str) -> None:
    for port in SERVICES[name].get("ports", ()):
        assert re.match(r"127\.0\.0\.1:\$\{SHASHIN_COMPOSE_[A-Z0-9]+_PORT:-\d+\}:", port)


def test_the_check_knows_every_port() -> None:
    bound = [port for one in SERVICES.values() for port in one.get("ports", ())]
    known = ports(TEXT, {})
    assert len(known) == len(bound) == len(set(known.values()))


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_a_health_check_or_ends_by_itself(name: str) -> None:
    assert ("healthcheck" in SERVICES[name]) != (name in ONE_SHOT)


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_contained(name: str) -> None:
    service = SERVICES[name]
    user = service["user"].partition(":")[0]
    assert user.isdigit()
    assert user != "0"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert mebibytes(service["mem_limit"]) > 0
    assert "privileged" not in service
    assert not any("docker.sock" in volume for volume in service.get("volumes", ()))


@pytest.mark.parametrize("name", SERVICES)
def test_no_image_is_whatever_is_latest(name: str) -> None:
    tag = SERVICES[name]["image"].partition(":")[2]
    assert tag
    assert "latest" not in tag


def test_the_default_profile_may_take_six_gigabytes() -> None:
    assert sum(mebibytes(one["mem_limit"]) for one in DEFAULT.values()) <= 6 * 1024


def test_everything_waits_for_what_it_needs() -> None:
    for one in SERVICES.values():
        for other, how in one.get("depends_on", {}).items():
            expected = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
            assert how == {"condition": expected}


def test_every_volume_is_named_and_used() -> None:
    used = {
        volume.partition(":")[0]
        for one in SERVICES.values()
        for volume in one.get("volumes", ())
        if not volume.startswith("./")
    }
    assert used == set(FILE["volumes"])


def test_prometheus_scrapes_every_service_that_has_metrics() -> None:
    config = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text())
    targets = {
        target
        for job in config["scrape_configs"]
        for group in job["static_configs"]
        for target in group["targets"]
    }
    serving = {
        f"{name}:8080" for name, one in DEFAULT.items() if "8080" in str(one.get("healthcheck"))
    }
    assert len(serving) == 10
    assert targets == serving
