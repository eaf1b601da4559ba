"""Whatever is done to a store, in whatever order, it answers as a dictionary would."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shashin.errors import ObjectNotFound, PreconditionFailed
from shashin.objectstore.protocol import ObjectInfo, ObjectStore
from tests.contract.objectstore.conftest import OpenStore

KEYS = st.sampled_from(["a/b/c", "a/bc", "a/b d", "b", "a#1?x=%20+", "写真/é"])
PREFIXES = st.sampled_from(["", "a", "a/", "a/b", "a/b/", "b", "写", "c/d"])

Condition = Literal["none", "absent", "current", "earlier", "another's"]


@dataclass(frozen=True)
class Put:
    key: str
    data: bytes
    condition: Condition
    from_file: bool


@dataclass(frozen=True)
class Get:
    key: str
    to_file: bool


@dataclass(frozen=True)
class List:
    prefix: str


PUTS = st.builds(
    Put,
    KEYS,
    st.binary(max_size=30),
    st.sampled_from(["none", "absent", "current", "earlier", "another's"]),
    st.booleans(),
)
OPERATIONS = st.lists(
    st.one_of(PUTS, st.builds(Get, KEYS, st.booleans()), st.builds(List, PREFIXES)), max_size=25
)


class Model:
    """What a store should hold: every key's data and generations, the current one last."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, list[int]]] = {}

    def generation(self, key: str) -> int:
        return self._objects[key][1][-1] if key in self._objects else 0

    def condition(self, put: Put) -> int | None:
        """Return the generation that the write is conditioned on."""
        if put.condition == "none":
            return None
        if put.condition == "absent":
            return 0
        if put.condition == "current":
            return self.generation(put.key)
        if put.condition == "earlier":
            return self._objects[put.key][1][0] if put.key in self._objects else 1
        return next((self.generation(key) for key in self._objects if key != put.key), 1)

    def put(self, put: Put, generation: int) -> None:
        earlier = self._objects.get(put.key, (b"", []))[1]
        assert generation not in earlier
        self._objects[put.key] = (put.data, [*earlier, generation])

    def get(self, key: str) -> tuple[bytes, int] | None:
        return (self._objects[key][0], self.generation(key)) if key in self._objects else None

    def listed(self, prefix: str) -> list[ObjectInfo]:
        return sorted(
            ObjectInfo(key, len(data), generations[-1])
            for key, (data, generations) in self._objects.items()
            if key.startswith(prefix)
        )


class Checked:
    """A store's folder and its model, side by side."""

    def __init__(self, store: ObjectStore, scratch: Path) -> None:
        self._store = store
        self._folder = f"{uuid.uuid4().hex}/"
        self._scratch = scratch
        self._model = Model()

    async def do(self, operation: Put | Get | List) -> None:
        if isinstance(operation, Put):
            await self._put(operation)
        elif isinstance(operation, Get):
            assert await self._get(operation) == self._model.get(operation.key)
        else:
            assert await self._list(operation.prefix) == self._model.listed(operation.prefix)

    async def _put(self, put: Put) -> None:
        key, condition = self._folder + put.key, self._model.condition(put)
        holds = condition in {None, self._model.generation(put.key)}
        try:
            if put.from_file:
                self._scratch.write_bytes(put.data)
                generation = await self._store.upload(
                    key, self._scratch, if_generation_match=condition
                )
            else:
                generation = await self._store.write(key, put.data, if_generation_match=condition)
        except PreconditionFailed:
            assert not holds
        else:
            assert holds
            self._model.put(put, generation)

    async def _get(self, get: Get) -> tuple[bytes, int] | None:
        try:
            if not get.to_file:
                return await self._store.read(self._folder + get.key)
            await self._store.download(self._folder + get.key, self._scratch)
        except ObjectNotFound:
            return None
        return self._scratch.read_bytes(), self._model.generation(get.key)

    async def _list(self, prefix: str) -> list[ObjectInfo]:
        return [
            ObjectInfo(info.key.removeprefix(self._folder), info.size, info.generation)
            for info in await self._store.list_objects(self._folder + prefix)
        ]


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each has a folder of its own
)
@given(operations=OPERATIONS)
async def test_it_answers_as_a_dictionary_does(
    open_store: OpenStore, tmp_path: Path, operations: list[Put | Get | List]
) -> None:
    checked = Checked(open_store(), tmp_path / "scratch")
    for operation in operations:
        await checked.do(operation)
    await checked.do(List(""))
