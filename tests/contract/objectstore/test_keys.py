"""Every store accepts and rejects the same keys."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shashin.errors import UserError
from shashin.objectstore.keys import check_key, check_prefix
from shashin.objectstore.protocol import ObjectInfo, ObjectStore
from tests.contract.objectstore.conftest import names_in, streamed

BAD_KEYS = [
    "",
    "/",
    "/etc/passwd",
    "..",
    "../a",
    "a/../b",
    "a/..",
    ".",
    "./a",
    "a/./b",
    ".hidden",
    ".lock",
    ".scratch/a",
    "a/.hidden",
    "a//b",
    "a/",
    "a\nb",
    "a\x00b",
    "a\\b",
]
NO_PREFIXES = sorted(set(BAD_KEYS) - {"", "a/"})
"""A prefix may be empty, and may end with a slash."""

Operation = Callable[[ObjectStore, str, Path], Awaitable[object]]

OPERATIONS: dict[str, Operation] = {
    "stat": lambda store, key, path: store.stat(key),
    "stream": lambda store, key, path: streamed(store, key),
    "delete": lambda store, key, path: store.delete(key),
    "read": lambda store, key, path: store.read(key),
    "download": lambda store, key, path: store.download(key, path.with_name("down")),
    "write": lambda store, key, path: store.write(key, b"data"),
    "upload": lambda store, key, path: store.upload(key, path),
}

PARTS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="/\\"),
    min_size=1,
    max_size=12,
).filter(lambda part: not part.startswith("."))
GOOD_KEYS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_every_operation_rejects_an_invalid_key(
    store: ObjectStore, operation: str, tmp_path: Path
) -> None:
    (tmp_path / "up").write_bytes(b"data")
    for key in BAD_KEYS:
        with pytest.raises(UserError, match="is not a relative path") as refused:
            await OPERATIONS[operation](store, key, tmp_path / "up")
        assert repr(key) in refused.value.message
    assert await store.list_objects("") == []
    assert names_in(tmp_path) == ["up"]


async def test_an_invalid_prefix_cannot_be_listed(store: ObjectStore) -> None:
    await store.write("a", b"data")
    for prefix in NO_PREFIXES:
        with pytest.raises(UserError, match="is not a relative path"):
            await store.list_objects(prefix)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # keys of others do no harm
)
@given(key=GOOD_KEYS, data=st.binary(max_size=20))
async def test_any_other_key_is_read_and_listed_as_it_was_written(
    store: ObjectStore, key: str, data: bytes
) -> None:
    # In its own folder: a key cannot be the folder of an earlier one.
    folder = f"{uuid.uuid4().hex}/"
    version = await store.write(folder + key, data)
    written = ObjectInfo(folder + key, len(data), version)
    assert await store.read(folder + key) == (data, version)
    assert await store.stat(folder + key) == written
    assert await store.list_objects(folder) == [written]
    await store.delete(folder + key)
    assert await store.list_objects(folder) == []


@given(GOOD_KEYS, st.integers(0, 60))
def test_every_prefix_of_a_key_is_valid(key: str, length: int) -> None:
    check_prefix(key[:length])


@given(st.text(max_size=12))
def test_a_key_that_is_taken_is_the_path_of_its_parts(key: str) -> None:
    try:
        parts = check_key(key)
    except UserError:
        return
    assert "/".join(parts) == key
    path = Path("/store").joinpath(*parts)
    assert path.relative_to("/store").as_posix() == key
    assert not any(part in {"", ".", ".."} for part in path.parts[1:])
