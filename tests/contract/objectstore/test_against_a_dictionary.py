"""Any sequence of operations on a store gives the same results as on a dictionary."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shashin.errors import ObjectNotFound, PreconditionFailed
from shashin.objectstore.protocol import ObjectInfo, ObjectStore, OnlyIf, Version
from tests.contract.objectstore.conftest import streamed

KEYS = st.sampled_from(["a/b/c", "a/bc", "a/b d", "b", "a#1?x=%20+", "写真/é"])
PREFIXES = st.sampled_from(["", "a", "a/", "a/b", "a/b/", "b", "写", "c/d"])

Condition = Literal["none", "absent", "current", "earlier", "another's"]
CONDITIONS: st.SearchStrategy[Condition] = st.sampled_from(
    ["none", "absent", "current", "earlier", "another's"]
)


@dataclass(frozen=True)
class Put:
    key: str
    data: bytes
    condition: Condition
    from_file: bool


@dataclass(frozen=True)
class Delete:
    key: str
    condition: Condition


@dataclass(frozen=True)
class Get:
    key: str
    way: Literal["read", "stream", "download"]


@dataclass(frozen=True)
class Stat:
    key: str


@dataclass(frozen=True)
class List:
    prefix: str


Operation = Put | Delete | Get | Stat | List

OPERATIONS: st.SearchStrategy[list[Operation]] = st.lists(
    st.one_of(
        st.builds(Put, KEYS, st.binary(max_size=30), CONDITIONS, st.booleans()),
        st.builds(Delete, KEYS, CONDITIONS),
        st.builds(Get, KEYS, st.sampled_from(["read", "stream", "download"])),
        st.builds(Stat, KEYS),
        st.builds(List, PREFIXES),
    ),
    max_size=25,
)


class Model:
    """The expected contents of a store, and every version that each key ever had."""

    def __init__(self, foreign: Version) -> None:
        self._objects: dict[str, tuple[bytes, Version]] = {}
        self._history: dict[str, dict[Version, bytes]] = {}
        self._foreign = foreign
        """A version that belongs to none of the keys."""

    def version(self, key: str) -> Version | None:
        return self._objects[key][1] if key in self._objects else None

    def only_if(self, key: str, condition: Condition) -> OnlyIf | None:
        """Return the precondition for a write or delete of the key."""
        if condition == "none":
            return None
        current = self.version(key)
        if condition == "absent" or (condition == "current" and current is None):
            return OnlyIf.absent()
        if condition == "current":
            assert current is not None
            return OnlyIf.unchanged(current)
        if condition == "earlier":
            return OnlyIf.unchanged(next(iter(self._history.get(key, {})), self._foreign))
        others = (version for other, (_, version) in self._objects.items() if other != key)
        return OnlyIf.unchanged(next(others, self._foreign))

    def put(self, key: str, data: bytes, version: Version) -> None:
        # A store may reuse a version for the same bytes, but never for others.
        assert self._history.setdefault(key, {}).setdefault(version, data) == data
        self._objects[key] = (data, version)

    def delete(self, key: str) -> None:
        self._objects.pop(key, None)

    def get(self, key: str) -> bytes | None:
        return self._objects[key][0] if key in self._objects else None

    def read(self, key: str) -> tuple[bytes, Version] | None:
        return self._objects.get(key)

    def listed(self, prefix: str) -> list[ObjectInfo]:
        return sorted(
            ObjectInfo(key, len(data), version)
            for key, (data, version) in self._objects.items()
            if key.startswith(prefix)
        )

    def stat(self, key: str) -> ObjectInfo | None:
        return next((info for info in self.listed(key) if info.key == key), None)


class Checked:
    """A store's folder and its model, side by side."""

    def __init__(self, store: ObjectStore, foreign: Version, scratch: Path) -> None:
        self._store = store
        self._folder = f"{uuid.uuid4().hex}/"
        self._scratch = scratch
        self._model = Model(foreign)

    async def do(self, operation: Operation) -> None:
        if isinstance(operation, Put):
            await self._put(operation)
        elif isinstance(operation, Delete):
            await self._delete(operation)
        elif isinstance(operation, Get):
            await self._get(operation)
        elif isinstance(operation, Stat):
            assert await self._stat(operation.key) == self._model.stat(operation.key)
        else:
            assert await self._list(operation.prefix) == self._model.listed(operation.prefix)

    async def _put(self, put: Put) -> None:
        key, only_if = self._folder + put.key, self._model.only_if(put.key, put.condition)
        holds = only_if is None or only_if.holds(self._model.version(put.key))
        try:
            if put.from_file:
                self._scratch.write_bytes(put.data)
                version = await self._store.upload(key, self._scratch, only_if=only_if)
            else:
                version = await self._store.write(key, put.data, only_if=only_if)
        except PreconditionFailed:
            assert not holds
        else:
            assert holds
            self._model.put(put.key, put.data, version)

    async def _delete(self, delete: Delete) -> None:
        only_if = self._model.only_if(delete.key, delete.condition)
        holds = only_if is None or only_if.holds(self._model.version(delete.key))
        try:
            await self._store.delete(self._folder + delete.key, only_if=only_if)
        except PreconditionFailed:
            assert not holds
        else:
            assert holds
            self._model.delete(delete.key)

    async def _get(self, get: Get) -> None:
        key = self._folder + get.key
        try:
            if get.way == "read":
                assert await self._store.read(key) == self._model.read(get.key)
            elif get.way == "stream":
                assert b"".join(await streamed(self._store, key)) == self._model.get(get.key)
            else:
                await self._store.download(key, self._scratch)
                assert self._scratch.read_bytes() == self._model.get(get.key)
        except ObjectNotFound:
            assert self._model.get(get.key) is None

    async def _stat(self, key: str) -> ObjectInfo | None:
        try:
            return self._in_the_folder(await self._store.stat(self._folder + key))
        except ObjectNotFound:
            return None

    async def _list(self, prefix: str) -> list[ObjectInfo]:
        listed = await self._store.list_objects(self._folder + prefix)
        return [self._in_the_folder(info) for info in listed]

    def _in_the_folder(self, info: ObjectInfo) -> ObjectInfo:
        return ObjectInfo(info.key.removeprefix(self._folder), info.size, info.version)


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each has a folder of its own
)
@given(operations=OPERATIONS)
async def test_it_answers_as_a_dictionary_does(
    store: ObjectStore, tmp_path: Path, operations: list[Operation]
) -> None:
    foreign = await store.write("foreign", b"what no key of the model ever holds")
    checked = Checked(store, foreign, tmp_path / "scratch")
    for operation in operations:
        await checked.do(operation)
    await checked.do(List(""))
