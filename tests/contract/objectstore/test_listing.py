"""A listing contains exactly the objects whose key starts with a prefix."""

from __future__ import annotations

from pathlib import Path

import pytest

from shashin.errors import PreconditionFailed
from shashin.objectstore.protocol import ObjectInfo, ObjectStore, OnlyIf
from tests.contract.conftest import OpenStore

KEYS = ["a/b/1", "a/b/2", "a/bc/1", "a/bd", "a/B", "a-b", "ab", "z/ü 日本"]


async def listed(store: ObjectStore, prefix: str) -> list[str]:
    return [info.key for info in await store.list_objects(prefix)]


async def test_objects_are_listed_with_size_and_version_sorted_by_key(
    store: ObjectStore,
) -> None:
    written = [
        ObjectInfo(key, size, await store.write(key, bytes(size))) for size, key in enumerate(KEYS)
    ]
    assert await store.list_objects("") == sorted(written)


async def test_a_listing_shows_the_newest_version(store: ObjectStore) -> None:
    await store.write("a", b"first")
    newest = await store.write("a", b"the second")
    assert await store.list_objects("a") == [ObjectInfo("a", 10, newest)]


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("a/b", ["a/b/1", "a/b/2", "a/bc/1", "a/bd"]),
        ("a/b/", ["a/b/1", "a/b/2"]),
        ("a/", ["a/B", "a/b/1", "a/b/2", "a/bc/1", "a/bd"]),
        ("a", ["a-b", "a/B", "a/b/1", "a/b/2", "a/bc/1", "a/bd", "ab"]),
        ("a/bd", ["a/bd"]),
        ("a/bd/", []),
        ("a/c", []),
        ("nothing/at/all/", []),
        ("z/ü", ["z/ü 日本"]),
    ],
)
async def test_a_prefix_is_a_beginning_of_the_key_and_need_not_be_a_folder(
    store: ObjectStore, prefix: str, expected: list[str]
) -> None:
    for key in KEYS:
        await store.write(key, b"")
    assert await listed(store, prefix) == expected


@pytest.mark.parametrize("prefix", ["", "a", "a/b/"])
async def test_an_empty_store_lists_nothing(store: ObjectStore, prefix: str) -> None:
    assert await store.list_objects(prefix) == []


async def test_failed_writes_are_not_listed(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store()
    version = await store.write("a", b"data")
    (tmp_path / "up").write_bytes(b"data")
    for key, only_if in (("a", OnlyIf.absent()), ("b", OnlyIf.unchanged(version))):
        with pytest.raises(PreconditionFailed):
            await store.write(key, b"data", only_if=only_if)
        with pytest.raises(PreconditionFailed):
            await store.upload(key, tmp_path / "up", only_if=only_if)
    assert await listed(open_store(), "") == ["a"]
