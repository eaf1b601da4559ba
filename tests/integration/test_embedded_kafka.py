"""The embedded Kafka: start, durability and errors."""

from __future__ import annotations

import os
import signal
import socket
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from shashin.errors import FetchFailed, ProcessFailed, UserError
from shashin.local.jars import ensure_jars, read_pins, sha256_of
from shashin.local.kafka import EmbeddedKafka
from shashin.local.ports import free_port
from tests.support.waiting import until


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[EmbeddedKafka]:
    kafka = EmbeddedKafka(tmp_path, port=free_port())
    try:
        yield kafka
    finally:
        await kafka.stop()


async def send(bootstrap: str, topic: str, value: bytes, *, transaction: bool = False) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        enable_idempotence=True,
        transactional_id=f"test-{uuid.uuid4()}" if transaction else None,
    )
    await producer.start()
    try:
        if transaction:
            async with producer.transaction():
                await producer.send_and_wait(topic, value)
        else:
            await producer.send_and_wait(topic, value)
    finally:
        await producer.stop()


async def first_value(bootstrap: str, topic: str) -> bytes:
    """Return the first record's value, read by a consumer group."""
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=f"group-{uuid.uuid4()}",
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    await consumer.start()
    try:
        return bytes((await consumer.getone()).value)
    finally:
        await consumer.stop()


async def test_it_starts_from_nothing_with_groups_and_transactions_and_data_survive_a_crash(
    embedded: EmbeddedKafka,
) -> None:
    assert await embedded.start()
    assert not await embedded.start(), "a second start finds it running"
    admin = AIOKafkaAdminClient(bootstrap_servers=embedded.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, 1, 1) for name in ("plain", "transactional")])
    await admin.close()
    await send(embedded.bootstrap, "plain", b"kept")
    await send(embedded.bootstrap, "transactional", b"kept, too", transaction=True)
    assert await first_value(embedded.bootstrap, "plain") == b"kept"
    pid = embedded.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not embedded.is_running(), "kafka is dead")
    assert await embedded.start()
    assert await first_value(embedded.bootstrap, "plain") == b"kept"
    assert await first_value(embedded.bootstrap, "transactional") == b"kept, too"
    assert await embedded.stop()
    assert not embedded.is_running()
    assert not await embedded.stop()


async def test_the_error_for_a_port_in_use_says_how_to_fix_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"port {port} .*needed for kafka.*in use by pid \d+"):
            await EmbeddedKafka(tmp_path, port=port).start()


async def test_a_jvm_that_dies_is_an_error_with_the_last_lines_of_its_log(tmp_path: Path) -> None:
    kafka = EmbeddedKafka(tmp_path, port=free_port())
    await kafka.start()
    await kafka.stop()
    meta = next((tmp_path / "kafka" / "data").rglob("meta.properties"))
    meta.write_text("version=1\nnode.id=999\ncluster.id=another\n")
    with pytest.raises(ProcessFailed, match=r"died with exit code 1; the last lines of") as failed:
        await kafka.start()
    assert "node.id" in failed.value.message or "meta.properties" in failed.value.message
    assert not kafka.is_running()


async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "kafka").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot keep its data in .*kafka"):
        await EmbeddedKafka(tmp_path).start()


async def test_a_full_disk_is_named_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1_000_000

    monkeypatch.setattr("shutil.disk_usage", lambda _path: Usage)
    with pytest.raises(UserError, match="1 MB left, kafka needs"):
        await EmbeddedKafka(tmp_path).start()


def test_a_jar_that_was_changed_is_fetched_again(tmp_path: Path) -> None:
    pins = read_pins()
    jars = ensure_jars()
    (tmp_path / f"kafka-{pins.kafka_version}").mkdir()
    for jar in jars:
        (tmp_path / f"kafka-{pins.kafka_version}" / jar.name).symlink_to(jar)
    smallest = min(pins.jars, key=lambda jar: jar.size)
    broken = tmp_path / f"kafka-{pins.kafka_version}" / smallest.filename
    broken.unlink()
    broken.write_bytes(b"changed")
    ensure_jars(cache=tmp_path)
    assert sha256_of(broken) == smallest.sha256


def test_a_jar_that_no_repository_has_is_reported(tmp_path: Path) -> None:
    from dataclasses import replace

    pins = read_pins()
    unknown = replace(pins.jars[0], version="0.0.0-none")
    with pytest.raises(FetchFailed, match=r"0\.0\.0-none cannot be downloaded"):
        ensure_jars(replace(pins, jars=(unknown,)), cache=tmp_path)
