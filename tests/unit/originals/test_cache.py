"""The cache of originals: what it returns, what it forgets, and what it survives."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from shashin.originals import Original, OriginalsCache, SourceVersion
from shashin.originals.entry import CacheEntry, parse_entry
from tests.support.small_disk import mounted_disk

URI = "https://img.example.com/a.jpg"
DAY = 86_400.0


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def cache_in(folder: Path, clock: Clock, *, max_bytes: int = 1_000_000) -> OriginalsCache:
    return OriginalsCache(folder, max_bytes=max_bytes, keep_seconds=DAY, clock=clock)


@pytest.fixture
def cache(tmp_path: Path, clock: Clock) -> OriginalsCache:
    return cache_in(tmp_path / "cache", clock)


def original(data: bytes) -> Original:
    return Original(data, hashlib.sha256(data).digest())


def files(cache: OriginalsCache, kind: str) -> list[Path]:
    return sorted(path for path in (cache.folder / kind).rglob("*") if path.is_file())


def test_an_original_is_returned_as_it_was_stored_by_any_process(
    cache: OriginalsCache, clock: Clock
) -> None:
    photo, version = original(b"photo"), SourceVersion('"1"', "yesterday")
    assert cache.store(URI, photo, version)
    other = cache_in(cache.folder, clock)
    assert other.cached(URI) == photo
    entry = other.lookup(URI)
    assert entry == CacheEntry(URI, photo.sha256.hex(), 5, version, clock.now)
    assert other.cached(URI + "?") is None


def test_an_original_is_only_returned_if_it_is_the_expected_one(cache: OriginalsCache) -> None:
    photo = original(b"photo")
    cache.store(URI, photo, SourceVersion())
    assert cache.cached(URI, photo.sha256) == photo
    assert cache.cached(URI, photo.sha256[:4]) == photo
    assert cache.cached(URI, b"") == photo
    assert cache.cached(URI, bytes(4)) is None


def test_the_same_bytes_under_two_uris_are_stored_once(cache: OriginalsCache) -> None:
    for uri in (URI, URI + "2"):
        cache.store(uri, original(b"photo"), SourceVersion())
    assert len(files(cache, "content")) == 1
    assert len(files(cache, "uris")) == 2
    assert cache.cached(URI + "2") == original(b"photo")


def test_new_bytes_under_a_uri_replace_the_old_ones(cache: OriginalsCache) -> None:
    cache.store(URI, original(b"old"), SourceVersion('"1"'))
    cache.store(URI, original(b"new"), SourceVersion('"2"'))
    assert cache.cached(URI) == original(b"new")


def test_a_forgotten_uri_is_a_miss(cache: OriginalsCache) -> None:
    cache.store(URI, original(b"photo"), SourceVersion())
    cache.forget(URI)
    cache.forget(URI)
    assert cache.cached(URI) is None


def test_a_confirmed_entry_is_as_recent_as_a_new_one(cache: OriginalsCache, clock: Clock) -> None:
    cache.store(URI, original(b"photo"), SourceVersion('"1"'))
    entry = cache.lookup(URI)
    assert entry is not None
    clock.now += 500
    cache.confirm(entry)
    confirmed = cache.lookup(URI)
    assert confirmed is not None
    assert confirmed.fetched_at == clock.now


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: data + b"x",
        lambda data: bytes(len(data)),
    ],
    ids=["cut short", "empty", "longer", "zeros"],
)
@pytest.mark.parametrize("kind", ["content", "uris"])
def test_what_was_damaged_is_never_returned_and_can_be_stored_again(
    cache: OriginalsCache, kind: str, damage: object
) -> None:
    cache.store(URI, original(b"photo"), SourceVersion())
    (path,) = files(cache, kind)
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    assert cache.cached(URI) in {None, original(b"photo")}
    if kind == "content":
        assert not path.exists()
        assert cache.lookup(URI) is None
    cache.store(URI, original(b"photo"), SourceVersion())
    assert cache.cached(URI) == original(b"photo")


def test_an_entry_of_another_uri_is_not_used(cache: OriginalsCache) -> None:
    cache.store(URI, original(b"photo"), SourceVersion())
    cache.store("other", original(b"other"), SourceVersion())
    first, second = files(cache, "uris")
    first.write_bytes(second.read_bytes())
    assert cache.cached(URI) in {None, original(b"photo")}
    assert cache.cached("other") in {None, original(b"other")}


@given(st.binary(max_size=300))
def test_any_bytes_are_an_entry_or_none(data: bytes) -> None:
    assert parse_entry(data, URI) is None


@given(
    st.builds(
        CacheEntry,
        uri=st.text(st.characters(exclude_categories=["Cs"])),
        sha256=st.binary(min_size=32, max_size=32).map(bytes.hex),
        size=st.integers(1, 2**40),
        version=st.builds(
            SourceVersion, st.text(st.characters(exclude_categories=["Cs"])), st.text("abc")
        ),
        fetched_at=st.floats(0, 1e12),
    )
)
def test_an_entry_is_read_as_it_was_written(entry: CacheEntry) -> None:
    assert parse_entry(entry.encoded(), entry.uri) == entry


def test_content_that_is_gone_is_a_miss_and_its_entry_is_dropped(cache: OriginalsCache) -> None:
    cache.store(URI, original(b"photo"), SourceVersion())
    files(cache, "content")[0].unlink()
    assert cache.cached(URI) is None
    assert not files(cache, "uris")


@pytest.mark.parametrize("kind", ["content", "uris"])
def test_something_else_in_place_of_a_file_is_a_miss(cache: OriginalsCache, kind: str) -> None:
    cache.store(URI, original(b"photo"), SourceVersion())
    (path,) = files(cache, kind)
    path.unlink()
    os.mkfifo(path)
    assert cache.cached(URI) is None


# --- limits ---------------------------------------------------------------------------------------


def test_the_least_recently_used_originals_go_first(cache: OriginalsCache, clock: Clock) -> None:
    small = cache_in(cache.folder, clock, max_bytes=4_500)
    for name in "abcd":
        small.store(name, original(name.encode() * 1000), SourceVersion())
        clock.now += 100
    assert small.cached("a") is not None
    pruned = small.prune()
    assert pruned is not None
    assert (pruned.expired, pruned.surplus) == (0, 1)
    assert [name for name in "abcd" if small.cached(name)] == ["a", "c", "d"]
    assert small.stats().bytes <= 4_500


def test_what_was_not_used_for_too_long_is_removed_with_its_entry(
    cache: OriginalsCache, clock: Clock
) -> None:
    cache.store("old", original(b"old"), SourceVersion())
    clock.now += 0.6 * DAY
    cache.store("new", original(b"new"), SourceVersion())
    clock.now += 0.6 * DAY
    dry = cache.prune(dry_run=True)
    assert len(files(cache, "content")) == 2
    assert cache.prune() == dry
    assert dry is not None
    assert (dry.expired, dry.surplus) == (1, 0)
    assert (cache.stats().originals, cache.stats().entries) == (1, 1)
    assert cache.cached("old") is None
    assert cache.cached("new") == original(b"new")


def test_an_entry_whose_content_another_uri_keeps_in_use_stays(
    cache: OriginalsCache, clock: Clock
) -> None:
    cache.store("rare", original(b"photo"), SourceVersion())
    clock.now += 0.6 * DAY
    cache.store("frequent", original(b"photo"), SourceVersion())
    clock.now += 0.6 * DAY
    cache.prune()
    assert cache.cached("rare") == original(b"photo")


def test_a_use_keeps_an_original(cache: OriginalsCache, clock: Clock) -> None:
    cache.store(URI, original(b"photo"), SourceVersion())
    for _ in range(5):
        clock.now += 0.6 * DAY
        assert cache.cached(URI) is not None
        cache.prune()


def test_a_reader_keeps_what_it_has_opened_while_another_process_prunes(
    cache: OriginalsCache, clock: Clock
) -> None:
    cache.store(URI, original(b"photo"), SourceVersion())
    with files(cache, "content")[0].open("rb") as reader:
        cache_in(cache.folder, clock, max_bytes=0).prune()
        assert not files(cache, "content")
        assert reader.read() == b"photo"


def test_nothing_but_its_own_files_is_removed(cache: OriginalsCache, clock: Clock) -> None:
    cache.store(URI, original(b"photo"), SourceVersion())
    others = [cache.folder / "content" / "ab" / "mine.jpg", cache.folder / "unfinished" / "mine"]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"mine")
        os.utime(path, (0, 0))
    clock.now += 10 * DAY
    cache.prune()
    assert cache.stats().originals == 0
    assert all(path.exists() for path in others)


def test_pruning_is_due_at_the_start_after_additions_and_after_a_while(
    cache: OriginalsCache, clock: Clock
) -> None:
    assert cache.prune_if_due() is not None
    assert cache.prune_if_due() is None
    cache.store(URI, original(b"x" * 20_000), SourceVersion())
    assert cache.prune_if_due() is not None
    clock.now += 601
    assert cache.prune_if_due() is not None


def test_one_process_prunes_at_a_time(cache: OriginalsCache, clock: Clock) -> None:
    cache.store(URI, original(b"photo"), SourceVersion())
    other = cache_in(cache.folder, clock)
    with other._only_pruner(needed=True) as alone:
        assert alone
        assert cache.prune() is None
        assert cache.prune(dry_run=True) is not None
    assert cache.prune() is not None


def test_an_empty_or_missing_cache_can_be_counted_and_pruned(cache: OriginalsCache) -> None:
    assert cache.stats().bytes == 0
    pruned = cache.prune()
    assert pruned is not None
    assert pruned.bytes == 0


class CacheModel(RuleBasedStateMachine):
    """Whatever happens to a cache, it returns what was stored last under a URI, or nothing."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self._temporary = tempfile.TemporaryDirectory()
        self._clock = Clock()
        self._cache = cache_in(Path(self._temporary.name), self._clock, max_bytes=3_000)
        self._stored: dict[str, bytes] = {}

    def teardown(self) -> None:
        self._temporary.cleanup()

    @rule(uri=st.sampled_from("abcd"), data=st.sampled_from([b"x" * 400, b"y" * 900, b"z"]))
    def store(self, uri: str, data: bytes) -> None:
        assert self._cache.store(uri, original(data), SourceVersion())
        self._stored[uri] = data
        assert self._cache.cached(uri) == original(data)

    @rule(uri=st.sampled_from("abcd"))
    def forget(self, uri: str) -> None:
        self._cache.forget(uri)
        assert self._cache.cached(uri) is None

    @rule(hours=st.integers(1, 30))
    def wait(self, hours: int) -> None:
        self._clock.now += hours * 3600

    @rule()
    def prune(self) -> None:
        assert self._cache.prune() is not None
        assert self._cache.stats().original_bytes <= 3_000

    @rule(number=st.integers(0, 7), data=st.binary(max_size=20))
    def damage(self, number: int, data: bytes) -> None:
        found = [*files(self._cache, "content"), *files(self._cache, "uris")]
        if found:
            found[number % len(found)].write_bytes(data)

    @invariant()
    def nothing_but_what_was_stored_last(self) -> None:
        for uri in "abcd":
            cached = self._cache.cached(uri)
            assert cached is None or cached == original(self._stored[uri])


TestCacheModel = CacheModel.TestCase


# --- a volume that cannot be written --------------------------------------------------------------


def test_a_full_volume_is_reported_and_left_alone_for_a_while_and_reads_go_on(
    cache: OriginalsCache, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.store(URI, original(b"photo"), SourceVersion())
    attempts = []

    def full(_descriptor: int, data: bytes) -> int:
        attempts.append(data)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        assert not cache.store("other", original(b"other"), SourceVersion())
        assert not cache.store("third", original(b"third"), SourceVersion())
    assert len(attempts) == 1
    assert cache.problem is not None
    assert "cannot be written (no space left on device)" in cache.problem
    assert cache.cached(URI) == original(b"photo")
    assert not files(cache, "unfinished")
    clock.now += 11
    assert cache.store("other", original(b"other"), SourceVersion())
    assert cache.problem is None


def test_a_volume_that_fills_up_loses_nothing_that_is_cached_and_is_used_again_when_it_has_room(
    tmp_path: Path, clock: Clock
) -> None:
    with mounted_disk(tmp_path / "volume", kibibytes=256) as volume:
        cache = cache_in(volume / "cache", clock)
        photo = original(bytes(40_000))
        assert cache.store(URI, photo, SourceVersion())
        number = 0
        while cache.store(f"{URI}?{number}", original(b"%d" % number * 40_000), SourceVersion()):
            number += 1
        assert number > 0
        assert cache.problem is not None
        assert "cannot be written (no space left on device)" in cache.problem
        assert not files(cache, "unfinished")
        assert cache.cached(URI) == photo
        assert cache.cached(f"{URI}?{number}") is None
        for kept in range(number):
            assert cache.cached(f"{URI}?{kept}") == original(b"%d" % kept * 40_000)
        cache_in(volume / "cache", clock, max_bytes=100_000).prune()
        clock.now += 11
        assert cache.store("other", original(b"other"), SourceVersion())
        assert cache.problem is None
        assert cache.cached("other") == original(b"other")


def test_a_folder_that_cannot_be_made_is_a_problem_and_no_error(
    tmp_path: Path, clock: Clock
) -> None:
    (tmp_path / "file").touch()
    cache = cache_in(tmp_path / "file" / "cache", clock)
    assert not cache.store(URI, original(b"photo"), SourceVersion())
    assert cache.problem is not None
    assert cache.cached(URI) is None
    assert cache.prune() is not None or cache.problem
