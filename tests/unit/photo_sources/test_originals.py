"""When a cached photo is used, when its source is asked, and what happens if it has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shashin.errors import PhotoError, PhotoForbidden, PhotoMissing, PhotoUnavailable
from shashin.metrics import downloader as metrics
from shashin.originals import OriginalsCache, SourceVersion
from shashin.photo_sources.byte_budget import ByteBudget, Lease
from shashin.photo_sources.originals import Originals
from shashin.photo_sources.source import SourcePhoto

URI = "https://img.example.com/a.jpg"
CONFIRM_AFTER = 1000.0


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Source:
    """Has one photo, and notes what it is asked."""

    def __init__(self) -> None:
        self.data = b"photo"
        self.etag = '"1"'
        self.error: PhotoError | None = None
        self.asked: list[str] = []

    async def fetch(
        self, uri: str, lease: Lease, known: SourceVersion | None = None
    ) -> SourcePhoto | None:
        self.asked.append("again" if known else "first")
        if self.error is not None:
            raise self.error
        version = SourceVersion(self.etag)
        if known == version:
            return None
        await lease.hold(len(self.data))
        return SourcePhoto(self.data, version)


class Fixture:
    """Originals with a source, a cache and a clock."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.source = Clock(), Source()
        self.cache = OriginalsCache(folder, max_bytes=10**6, keep_seconds=10**6, clock=self.clock)
        self.originals = Originals(
            self.source, self.cache, confirm_after_seconds=CONFIRM_AFTER, clock=self.clock
        )
        self.budget = ByteBudget(1000)

    async def fetch(self, *, confirm: bool = False) -> bytes:
        with self.budget.lease() as lease:
            found = await self.originals.fetch(URI, lease, confirm=confirm)
            assert self.budget.taken == len(found.data)
        assert found.sha256 == hashlib.sha256(found.data).digest()
        return found.data


@pytest.fixture
def fixture(tmp_path: Path) -> Fixture:
    return Fixture(tmp_path / "cache")


def confirmations(outcome: str) -> float:
    return float(metrics.CONFIRMATIONS.labels(outcome)._value.get())


async def test_a_photo_is_fetched_once_and_then_read_without_any_request(fixture: Fixture) -> None:
    for _ in range(3):
        assert await fixture.fetch() == b"photo"
    assert fixture.source.asked == ["first"]
    fixture.source.error = PhotoUnavailable("gone")
    assert await fixture.fetch() == b"photo"


async def test_without_a_cache_every_photo_is_fetched(fixture: Fixture) -> None:
    fixture.originals = Originals(fixture.source, None, confirm_after_seconds=CONFIRM_AFTER)
    assert await fixture.fetch() == await fixture.fetch() == b"photo"
    assert fixture.source.asked == ["first", "first"]


async def test_an_old_photo_is_confirmed_and_recent_again_then(fixture: Fixture) -> None:
    await fixture.fetch()
    before = confirmations("unchanged")
    fixture.clock.now += CONFIRM_AFTER
    assert await fixture.fetch() == b"photo"
    assert await fixture.fetch() == b"photo"
    assert fixture.source.asked == ["first", "again"]
    assert confirmations("unchanged") == before + 1


async def test_the_photo_of_an_updated_listing_is_confirmed_however_recent_it_is(
    fixture: Fixture,
) -> None:
    await fixture.fetch()
    assert await fixture.fetch(confirm=True) == b"photo"
    assert fixture.source.asked == ["first", "again"]


async def test_a_photo_that_changed_under_its_uri_is_noticed_and_the_new_one_is_used(
    fixture: Fixture,
) -> None:
    await fixture.fetch()
    before = confirmations("changed")
    fixture.source.data, fixture.source.etag = b"other", '"2"'
    assert await fixture.fetch() == b"photo"
    assert await fixture.fetch(confirm=True) == b"other"
    assert confirmations("changed") == before + 1
    assert await fixture.fetch() == b"other"


async def test_a_new_version_of_the_same_bytes_is_no_change(fixture: Fixture) -> None:
    await fixture.fetch()
    before = confirmations("changed"), confirmations("unchanged")
    fixture.source.etag = '"2"'
    assert await fixture.fetch(confirm=True) == b"photo"
    assert (confirmations("changed"), confirmations("unchanged")) == (before[0], before[1] + 1)


async def test_a_photo_that_changed_is_noticed_by_its_bytes_where_a_source_has_no_versions(
    fixture: Fixture,
) -> None:
    fixture.source.etag = ""
    await fixture.fetch()
    fixture.source.data, fixture.source.etag = b"other", '"x"'
    before = confirmations("changed")
    assert await fixture.fetch(confirm=True) == b"other"
    assert confirmations("changed") == before + 1


async def test_an_old_photo_is_used_while_its_source_is_unavailable_but_not_for_an_update(
    fixture: Fixture,
) -> None:
    await fixture.fetch()
    fixture.clock.now += CONFIRM_AFTER
    fixture.source.error = PhotoUnavailable("down")
    assert await fixture.fetch() == b"photo"
    with pytest.raises(PhotoUnavailable, match="down"):
        await fixture.fetch(confirm=True)


async def test_a_photo_that_its_source_has_deleted_is_dropped(fixture: Fixture) -> None:
    await fixture.fetch()
    fixture.source.error = PhotoMissing("deleted")
    with pytest.raises(PhotoMissing):
        await fixture.fetch(confirm=True)
    assert fixture.cache.cached(URI) is None


async def test_a_refusal_is_passed_on(fixture: Fixture) -> None:
    await fixture.fetch()
    fixture.source.error = PhotoForbidden("not yours")
    with pytest.raises(PhotoForbidden):
        await fixture.fetch(confirm=True)


async def test_a_photo_that_could_not_be_used_is_fetched_again(fixture: Fixture) -> None:
    await fixture.fetch()
    await fixture.originals.forget(URI)
    await fixture.fetch()
    assert fixture.source.asked == ["first", "first"]


def damaged(path: Path) -> None:
    path.write_bytes(b"PHOTO")


@pytest.mark.parametrize("lose", [Path.unlink, damaged], ids=["removed", "damaged"])
@pytest.mark.parametrize("confirm", [False, True])
async def test_a_photo_whose_cached_bytes_are_lost_is_fetched_again(
    fixture: Fixture, lose: Callable[[Path], Any], confirm: bool
) -> None:
    await fixture.fetch()
    (path,) = (path for path in (fixture.cache.folder / "content").rglob("*") if path.is_file())
    lose(path)
    assert await fixture.fetch(confirm=confirm) == b"photo"
    assert fixture.source.asked[-1] == "first"
    assert fixture.cache.cached(URI) is not None


async def test_a_cache_that_cannot_be_written_fails_no_photo(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fixture = Fixture(tmp_path / "file" / "cache")
    assert await fixture.fetch() == await fixture.fetch() == b"photo"
    assert fixture.source.asked == ["first", "first"]
    assert fixture.cache.problem is not None
