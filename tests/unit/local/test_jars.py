"""Only jars that are pinned, to the byte, are ever in Kafka's class path."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections import Counter
from pathlib import Path

import pytest

from shashin.errors import FetchFailed, JarMismatch, UserError
from shashin.local import jars
from shashin.local.jars import Jar, PinnedJars, ensure_jars, is_pinned, read_pins, user_cache

NAMES = ["kafka", "log4j", "lz4", "zstd"]


def content(name: str) -> bytes:
    return f"the classes of {name}".encode() * 50


def jar(name: str) -> Jar:
    data = content(name)
    return Jar("org.example", name, "1.0", hashlib.sha256(data).hexdigest(), len(data))


PINS = PinnedJars("9.9.9", tuple(map(jar, NAMES)))


class Repository:
    """A fake Maven repository that counts requests."""

    def __init__(self) -> None:
        self.holds = {name: content(name) for name in NAMES}
        self.requests: Counter[str] = Counter()
        self._lock = threading.Lock()

    def download(self, jar: Jar, staging: Path) -> Path:
        with self._lock:
            self.requests[jar.artifact] += 1
        if jar.artifact not in self.holds:
            raise FetchFailed(f"{jar.coordinate} cannot be downloaded")
        path = staging / "from" / jar.artifact / "downloaded.jar"
        path.parent.mkdir(parents=True)
        path.write_bytes(self.holds[jar.artifact])
        return path


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch) -> Repository:
    made = Repository()
    monkeypatch.setattr(jars, "download", made.download)
    return made


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def jars_in(cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cache.rglob("*.jar")}


WHOLE = {f"{name}-1.0.jar": content(name) for name in NAMES}


@pytest.mark.parametrize(
    ("data", "pinned"),
    [
        (content("lz4"), True),
        (content("lz4")[:-1], False),
        (content("lz4") + b"\n", False),
        (b"\x00" * len(content("lz4")), False),
        (b"", False),
    ],
)
def test_a_jar_is_pinned_to_the_byte(tmp_path: Path, data: bytes, pinned: bool) -> None:
    (tmp_path / "lz4.jar").write_bytes(data)
    assert is_pinned(tmp_path / "lz4.jar", jar("lz4")) == pinned


def test_a_jar_that_is_not_there_is_not_pinned(tmp_path: Path) -> None:
    assert not is_pinned(tmp_path / "lz4.jar", jar("lz4"))


def test_all_jars_are_fetched_once_and_needed_no_more_after_that(
    repository: Repository, cache: Path
) -> None:
    class_path = ensure_jars(PINS, cache=cache)
    assert [path.name for path in class_path] == [jar.filename for jar in PINS.jars]
    assert jars_in(cache) == WHOLE
    assert {path.name for path in class_path[0].parent.iterdir()} == {"lock", *WHOLE}
    repository.holds.clear()
    assert ensure_jars(PINS, cache=cache) == class_path, "without a network"
    assert repository.requests == Counter(NAMES)


def test_progress_is_calls_up_to_all_bytes(repository: Repository, cache: Path) -> None:
    calls: list[tuple[int, int]] = []
    ensure_jars(PINS, cache=cache, progress=lambda done, total: calls.append((done, total)))
    total = sum(jar.size for jar in PINS.jars)
    assert calls == sorted(calls)
    assert len(calls) == len(NAMES)
    assert calls[-1] == (total, total)


def test_a_jar_that_is_not_the_pinned_one_is_refused_and_not_kept(
    repository: Repository, cache: Path
) -> None:
    evil = b"x" * len(content("log4j"))
    repository.holds["log4j"] = evil
    with pytest.raises(JarMismatch) as refused:
        ensure_jars(PINS, cache=cache)
    assert not refused.value.retryable
    for part in ("org.example:log4j:1.0", hashlib.sha256(evil).hexdigest(), jar("log4j").sha256):
        assert part in refused.value.message
    assert evil not in [path.read_bytes() for path in cache.rglob("*") if path.is_file()]
    repository.holds["log4j"] = content("log4j")
    ensure_jars(PINS, cache=cache)
    assert jars_in(cache) == WHOLE


@pytest.mark.parametrize("changed", [b"changed", b"", content("lz4")[:-1] + b"!"])
def test_a_jar_that_was_changed_in_the_cache_is_fetched_again_and_no_other(
    repository: Repository, cache: Path, changed: bytes
) -> None:
    class_path = ensure_jars(PINS, cache=cache)
    class_path[NAMES.index("lz4")].write_bytes(changed)
    repository.requests.clear()
    ensure_jars(PINS, cache=cache)
    assert jars_in(cache) == WHOLE
    assert repository.requests == Counter(["lz4"])


def test_what_was_fetched_before_one_failed_is_kept(repository: Repository, cache: Path) -> None:
    del repository.holds["zstd"]
    with pytest.raises(FetchFailed, match=r"org\.example:zstd:1\.0 cannot be downloaded"):
        ensure_jars(PINS, cache=cache)
    repository.holds["zstd"] = content("zstd")
    repository.requests.clear()
    ensure_jars(PINS, cache=cache)
    assert jars_in(cache) == WHOLE
    assert repository.requests == Counter(["zstd"])


async def test_of_many_that_start_at_the_same_time_one_fetches_and_all_have_the_jars(
    repository: Repository, cache: Path
) -> None:
    class_paths = await asyncio.gather(
        *(asyncio.to_thread(ensure_jars, PINS, cache=cache) for _ in range(4))
    )
    assert all(class_path == class_paths[0] for class_path in class_paths)
    assert jars_in(cache) == WHOLE
    assert repository.requests == Counter(NAMES)


def test_another_version_has_a_folder_of_its_own(repository: Repository, cache: Path) -> None:
    ensure_jars(PINS, cache=cache)
    ensure_jars(PinnedJars("9.9.10", PINS.jars[:1]), cache=cache)
    assert {path.name for path in cache.iterdir()} == {"kafka-9.9.9", "kafka-9.9.10"}


@pytest.mark.parametrize("in_the_way", ["", "kafka-9.9.9"])
def test_a_cache_that_cannot_be_written_is_named_with_what_to_do(
    repository: Repository, cache: Path, in_the_way: str
) -> None:
    blocked = cache / in_the_way
    blocked.parent.mkdir(exist_ok=True)
    blocked.write_text("a file")
    with pytest.raises(UserError, match=f"cannot store kafka's jars in {cache}") as refused:
        ensure_jars(PINS, cache=cache)
    assert "set SHASHIN_CACHE to another folder" in refused.value.message


def test_the_cache_is_where_the_user_says_or_where_the_system_keeps_such_things() -> None:
    assert user_cache({"SHASHIN_CACHE": "/srv/cache", "XDG_CACHE_HOME": "/xdg"}) == Path(
        "/srv/cache"
    )
    assert user_cache({"SHASHIN_CACHE": "~/jars"}) == Path.home() / "jars"
    assert user_cache({}).is_relative_to(Path.home())


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"XDG_CACHE_HOME": "/xdg"}, Path("/xdg/shashin")),
        ({"XDG_CACHE_HOME": "relative"}, Path(".cache/shashin")),
        ({}, Path(".cache/shashin")),
    ],
)
def test_on_linux_the_cache_follows_the_desktop_standard(
    variables: dict[str, str], expected: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    assert user_cache(variables) == Path.home() / expected


def test_every_jar_of_the_project_is_pinned_and_has_a_name_of_its_own() -> None:
    pins = read_pins()
    names = [jar.filename for jar in pins.jars]
    assert len(names) == len(set(names)) > 10
    assert f"kafka_2.13-{pins.kafka_version}.jar" in names
    for pinned in pins.jars:
        assert pinned.size > 0
        assert len(bytes.fromhex(pinned.sha256)) == 32


def test_pins_are_read_as_they_are_written(tmp_path: Path) -> None:
    entry = {"group": "g", "artifact": "a", "version": "1", "sha256": "00", "size": 3}
    (tmp_path / "pins.json").write_text(json.dumps({"kafka": "9", "jars": [entry]}))
    assert read_pins(tmp_path / "pins.json") == PinnedJars("9", (Jar("g", "a", "1", "00", 3),))
