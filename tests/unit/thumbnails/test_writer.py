"""Thumbnails are written behind the pipeline's back: a store that hangs or fails costs only thumbnails."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from shashin.errors import ObjectStoreError
from shashin.runtime.health import Health
from shashin.runtime.scope import LoopScope
from shashin.thumbnails.store import ThumbnailStore
from shashin.thumbnails.writer import ATTEMPTS, WRITES_AT_ONCE, ThumbnailWriter
from tests.support.loops import running
from tests.support.waiting import until
from tests.unit.thumbnails.stores import OddStore, unavailable

ROOM = 10_000
SIZE = 1000


def photo(number: int) -> tuple[bytes, bytes, str]:
    """Return a photo's SHA-256, its thumbnail, and its hash."""
    digest = hashlib.sha256(str(number).encode()).digest()
    return digest, bytes([number % 256]) * SIZE, digest.hex()[:16]


def count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"shashin_thumbnails_{name}_total", labels) or 0.0


class Counts:
    """How much was counted since it was made."""

    def __init__(self) -> None:
        self._before = self._now()

    @staticmethod
    def _now() -> dict[str, float]:
        return {
            "new": count("written", outcome="new"),
            "existing": count("written", outcome="existing"),
            "no_room": count("dropped", reason="no_room"),
            "at_shutdown": count("dropped", reason="at_shutdown"),
            "unavailable": count("failed", reason="ObjectStoreUnavailable"),
            "refused": count("failed", reason="ObjectStoreError"),
            "unexpected": count("failed", reason="UnexpectedFailure"),
        }

    def __call__(self) -> dict[str, float]:
        now = self._now()
        return {name: now[name] - n for name, n in self._before.items() if now[name] != n}


def writer_for(
    store: ThumbnailStore, *, room: int = ROOM, attempt: float = 30.0
) -> ThumbnailWriter:
    return ThumbnailWriter(store, queue_bytes=room, attempt_seconds=attempt, pause_seconds=0.001)


def offer(writer: ThumbnailWriter, *numbers: int) -> None:
    for number in numbers:
        digest, thumbnail, _ = photo(number)
        writer.offer(digest, thumbnail)


async def test_what_is_offered_is_found_by_the_hash_of_its_photo_and_written_once(
    tmp_path: Path,
) -> None:
    store, counts = OddStore(tmp_path), Counts()
    writer = writer_for(store)
    async with running(writer.loop()):
        for _ in range(3):
            offer(writer, 1, 2)
        await until(lambda: counts().get("new") == 2, "both are written")
        offer(writer, 1, 2)
        writer.finish()
    for number in (1, 2):
        _, thumbnail, name = photo(number)
        assert await store.read(name) == thumbnail
    assert counts() == {"new": 2}
    assert not writer.problem


async def test_what_another_process_wrote_counts_as_there(tmp_path: Path) -> None:
    store, counts = OddStore(tmp_path), Counts()
    _, thumbnail, name = photo(1)
    await store.write(name, thumbnail)
    writer = writer_for(store)
    async with running(writer.loop()):
        offer(writer, 1)
        writer.finish()
    assert counts() == {"existing": 1}


async def test_a_photo_whose_hash_is_not_known_is_left_out(tmp_path: Path) -> None:
    store = OddStore(tmp_path)
    writer = writer_for(store)
    async with running(writer.loop()):
        writer.offer(b"", b"thumbnail")
        writer.finish()
    assert not store.calls


async def test_a_store_that_hangs_takes_what_there_is_room_for_and_the_rest_is_dropped(
    tmp_path: Path,
) -> None:
    store, counts = OddStore(tmp_path), Counts()
    store.open.clear()
    writer = writer_for(store, attempt=0.05)
    async with running(writer.loop()):
        offer(writer, *range(25))
        assert counts() == {"no_room": 15}, "nothing waited for the store"
        await until(lambda: "does not respond" in writer.problem, "it is said")
        await until(lambda: counts().get("unavailable") == 10, "attempts end")
        assert store.calls == 10 * ATTEMPTS

        store.open.set()

        def offered_again() -> bool:
            # A busy disk may need longer than an attempt has here; the next one finds what it wrote.
            offer(writer, *range(10))
            return counts().get("new", 0) + counts().get("existing", 0) == 10

        await until(offered_again, "they can be offered again")
        assert "does not respond" not in writer.problem
        writer.finish()


async def test_an_outage_is_retried(tmp_path: Path) -> None:
    store, counts = OddStore(tmp_path, [unavailable() for _ in range(ATTEMPTS - 1)]), Counts()
    writer = writer_for(store)
    async with running(writer.loop()):
        offer(writer, 1)
        writer.finish()
    assert counts() == {"new": 1}
    assert store.calls == ATTEMPTS


@pytest.mark.parametrize(
    ("error", "counted"),
    [(ObjectStoreError("no such bucket"), "refused"), (RuntimeError("a mistake"), "unexpected")],
)
async def test_what_no_retry_can_help_is_tried_once_and_said_until_a_write_succeeds(
    tmp_path: Path, error: Exception, counted: str
) -> None:
    store, counts = OddStore(tmp_path, [error]), Counts()
    writer = writer_for(store)
    async with running(writer.loop()):
        offer(writer, 1)
        await until(lambda: counts() == {counted: 1}, "it has failed")
        assert str(error) in writer.problem
        offer(writer, 1)
        await until(lambda: counts().get("new") == 1, "it is written")
        assert not writer.problem
        writer.finish()


async def test_only_healthz_says_that_thumbnails_are_not_written(tmp_path: Path) -> None:
    store = OddStore(tmp_path, [ObjectStoreError("no such bucket")])
    writer, health = writer_for(store), Health()
    offer(writer, 1)
    async with running(writer.loop(), health=health):
        await until(health.problems, "it is reported")
        assert health.problems() == ["thumbnails: are not written: no such bucket"]
        assert not health.readiness_problems()
        offer(writer, 2)
        await until(lambda: not health.problems(), "it works again")
        writer.finish()


async def test_what_waits_at_the_end_is_written_with_what_is_offered_until_then(
    tmp_path: Path,
) -> None:
    store, counts, stop = OddStore(tmp_path), Counts(), asyncio.Event()
    store.open.clear()
    writer = writer_for(store, room=100 * SIZE)
    offer(writer, *range(50))
    draining = asyncio.ensure_future(writer.run(LoopScope(Health().register("thumbnails"), stop)))
    stop.set()
    await until(lambda: store.calls == WRITES_AT_ONCE, "it writes")
    offer(writer, *range(50, 60))
    writer.finish()
    store.open.set()
    await draining
    assert counts() == {"new": 60}


async def test_what_is_not_written_when_the_time_to_drain_is_over_is_counted(
    tmp_path: Path,
) -> None:
    store, counts, stop = OddStore(tmp_path), Counts(), asyncio.Event()
    store.open.clear()
    writer = writer_for(store, room=100 * SIZE)
    offer(writer, *range(50))
    draining = asyncio.ensure_future(writer.run(LoopScope(Health().register("thumbnails"), stop)))
    stop.set()
    writer.finish()
    await until(lambda: store.calls == WRITES_AT_ONCE, "it hangs")
    draining.cancel()
    with suppress(asyncio.CancelledError):
        await draining
    assert counts() == {"at_shutdown": 50}
