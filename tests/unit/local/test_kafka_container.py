"""The container's Kafka: its settings, as far as they are this project's."""

from __future__ import annotations

from pathlib import Path

import pytest

from shashin.errors import SettingsError, UserError
from shashin.local import kafka_container
from shashin.local.kafka_container import (
    HEAP_VARIABLE,
    INSIDE_VARIABLE,
    OUTSIDE_VARIABLE,
    java_command,
    write_config,
)


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kafka_container, "_SCRATCH", tmp_path)
    return tmp_path


@pytest.mark.parametrize("heap", ["", "0", "-5", "lots", "1.5", "٣"])
def test_a_heap_that_is_no_number_is_named(heap: str) -> None:
    with pytest.raises(UserError, match=f"{HEAP_VARIABLE}={heap!r} is no number of MiB"):
        java_command({HEAP_VARIABLE: heap}, "kafka.Kafka")


def test_both_addresses_are_advertised(scratch: Path) -> None:
    environment = {INSIDE_VARIABLE: "broker:9092", OUTSIDE_VARIABLE: "127.0.0.1:29092"}
    text = write_config(environment, scratch / "data").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("advertised.listeners")]
    assert "//broker:9092" in line.replace("\\", "")
    assert "//127.0.0.1:29092" in line.replace("\\", "")
    assert (scratch / "log4j2.properties").read_text()


def test_listeners_cannot_share_a_port(scratch: Path) -> None:
    with pytest.raises(SettingsError):
        write_config({INSIDE_VARIABLE: "kafka:9092", OUTSIDE_VARIABLE: "127.0.0.1:9092"}, scratch)
