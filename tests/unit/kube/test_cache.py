"""The cache: whatever comes in whatever order, it has what it was told last, and names what changed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.errors import KubernetesUnavailable
from shashin.kube.cache import EventKind, ObjectCache, check_object
from shashin.kube.resource import Key, KubeObject, key_of


def made(name: str, version: int, uid: int = 0) -> KubeObject:
    metadata = {"namespace": "shop", "name": name, "resourceVersion": str(version), "uid": str(uid)}
    return {"metadata": metadata}


OBJECTS = st.builds(made, st.sampled_from("abcd"), st.integers(0, 3), st.integers(0, 1))
LISTS = st.lists(OBJECTS, unique_by=key_of)
EVENTS = st.tuples(st.sampled_from(["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]), OBJECTS)


def state(cache: ObjectCache) -> dict[Key, KubeObject]:
    return dict(cache.objects)


def difference(before: dict[Key, KubeObject], after: dict[Key, KubeObject]) -> set[Key]:
    return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


@given(st.lists(LISTS | EVENTS, max_size=12))
def test_every_difference_is_named_and_nothing_else(steps: list[Any]) -> None:
    cache = ObjectCache()
    for step in steps:
        before = state(cache)
        changed = cache.replace(step) if isinstance(step, list) else cache.apply(*step)
        assert changed == difference(before, state(cache))


@given(LISTS, st.lists(EVENTS, max_size=6), LISTS)
def test_a_list_is_the_whole_truth_whatever_was_before(
    first: list[KubeObject], events: list[tuple[EventKind, KubeObject]], last: list[KubeObject]
) -> None:
    cache = ObjectCache()
    cache.replace(first)
    for kind, found in events:
        cache.apply(kind, found)
    cache.replace(last)
    assert state(cache) == {key_of(found): found for found in last}


def test_an_object_of_the_same_version_and_another_uid_was_recreated() -> None:
    cache = ObjectCache()
    cache.replace([made("a", 1, uid=1)])
    assert cache.replace([made("a", 1, uid=2)]) == {("shop", "a")}


@pytest.mark.parametrize("wrong", [None, [], "x", {}, {"metadata": []}, {"metadata": {"name": 1}}])
def test_what_is_no_object_is_refused(wrong: object) -> None:
    with pytest.raises(KubernetesUnavailable, match="a list has something that is no object"):
        check_object(wrong, "a list")
