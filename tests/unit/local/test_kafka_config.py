"""Kafka's configuration round-trips for any name of the state folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.errors import SettingsError
from shashin.kafka.topics import MAX_RECORD_BYTES
from shashin.local.kafka_config import (
    container_listeners,
    java_options,
    log4j_properties,
    server_properties,
)

FOLDERS = st.lists(
    st.text(
        st.characters(codec="utf-8", exclude_characters="/\x00"), min_size=1, max_size=10
    ).filter(lambda part: part not in {".", ".."}),
    min_size=1,
    max_size=4,
).map(lambda parts: Path("/", *parts))


def java_properties(text: str) -> dict[str, str]:
    """Read a properties file as java.util.Properties does, as far as values go."""
    text.encode("latin-1")  # Java knows no other encoding of it
    found = {}
    for line in text.split("\n"):
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found[name.strip()] = unescaped(value.lstrip(" \t\f"))
    return found


def unescaped(value: str) -> str:
    assert "\r" not in value, "ends a line in Java"
    units, rest = [], iter(value)
    for char in rest:
        if char != "\\":
            units.append(ord(char))
            continue
        escape = next(rest)
        if escape == "u":
            units.append(int("".join(next(rest) for _ in range(4)), 16))
        else:
            units.append(ord({"t": "\t", "n": "\n", "r": "\r", "f": "\f"}.get(escape, escape)))
    return b"".join(unit.to_bytes(2, "big") for unit in units).decode("utf-16-be")


def server(data: Path = Path("/srv/kafka/data"), **changes: int) -> dict[str, str]:
    ports: dict[str, Any] = {"port": 9092, "controller_port": 9093, "max_record_bytes": 1000}
    ports |= changes
    return java_properties(server_properties(data=data, host="127.0.0.1", **ports))


@given(FOLDERS)
def test_any_folder_is_the_folder_that_kafka_reads(folder: Path) -> None:
    assert server(folder)["log.dirs"] == str(folder)
    assert len(server(folder)) == len(server()), "no folder's name becomes another setting"


@given(FOLDERS)
def test_any_folder_is_the_folder_that_the_log_is_written_to(folder: Path) -> None:
    settings = java_properties(log4j_properties(folder / "kafka.log"))
    assert settings["appender.file.fileName"] == str(folder / "kafka.log")
    assert settings["appender.file.filePattern"].startswith(str(folder / "kafka.log"))


@pytest.mark.parametrize("name", ["ü", "日本", "😀", "a b", "a\\b", "a=b", "#a", "é\u0301", "a:b"])
def test_folders_as_people_name_them(name: str) -> None:
    assert server(Path("/home") / name)["log.dirs"] == f"/home/{name}"


def test_one_node_is_broker_and_controller_and_listens_where_it_says() -> None:
    settings = server(port=19092, controller_port=19093)
    assert settings["process.roles"] == "broker,controller"
    assert settings["controller.quorum.bootstrap.servers"] == "127.0.0.1:19093"
    for name in ("listeners", "advertised.listeners"):
        assert settings[name] == "PLAINTEXT://127.0.0.1:19092,CONTROLLER://127.0.0.1:19093"


def test_one_node_asks_for_no_second_copy_of_anything() -> None:
    settings = server()
    copies = [
        name for name in settings if name.endswith((".replication.factor", ".isr", "replicas"))
    ]
    assert len(copies) >= 6
    assert {settings[name] for name in copies} == {"1"}


def test_no_topic_appears_because_its_name_was_misspelt() -> None:
    assert server()["auto.create.topics.enable"] == "false"


def test_the_largest_record_is_taken_and_copied() -> None:
    settings = server(max_record_bytes=MAX_RECORD_BYTES)
    assert int(settings["message.max.bytes"]) == MAX_RECORD_BYTES
    assert int(settings["replica.fetch.max.bytes"]) >= MAX_RECORD_BYTES


def test_the_log_is_one_file_and_the_one_before_it() -> None:
    settings = java_properties(log4j_properties(Path("/srv/kafka.log")))
    assert settings["appender.file.strategy.max"] == "1"
    assert settings["appender.file.policies.size.size"] == "8 MB"
    assert settings["rootLogger.appenderRef.file.ref"] == settings["appender.file.name"]


@given(st.integers(1, 4096))
def test_the_heap_begins_no_larger_than_it_may_become(heap_mb: int) -> None:
    options = java_options(heap_mb=heap_mb, log4j=Path("/srv/log4j"), logs=Path("/srv/logs"))
    assert f"-Xmx{heap_mb}m" in options
    (start,) = (int(option[4:-1]) for option in options if option.startswith("-Xms"))
    assert start <= heap_mb


def test_the_logging_configuration_is_named_as_a_uri() -> None:
    options = java_options(heap_mb=256, log4j=Path("/srv/ü b/log4j"), logs=Path("/srv"))
    assert "-Dlog4j2.configurationFile=file:///srv/%C3%BC%20b/log4j" in options


def test_a_broker_in_a_container_tells_each_client_the_address_that_this_client_reaches() -> None:
    listeners = container_listeners(
        inside="kafka:9092", outside="127.0.0.1:19092", controller_port=9093
    )
    settings = java_properties(
        server_properties(
            data=Path("/data"),
            host="127.0.0.1",
            port=9092,
            controller_port=9093,
            max_record_bytes=1000,
            more=listeners,
        )
    )
    told = dict(one.split("://") for one in settings["advertised.listeners"].split(","))
    assert told["PLAINTEXT"] == "kafka:9092"
    assert told["OUTSIDE"] == "127.0.0.1:19092"
    assert told["CONTROLLER"].startswith("127.0.0.1:"), "no other container may reach it"


def test_one_port_for_both_sides_is_refused() -> None:
    with pytest.raises(SettingsError, match="9092"):
        container_listeners(inside="kafka:9092", outside="127.0.0.1:9092", controller_port=9093)
