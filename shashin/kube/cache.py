"""The objects that a reflector knows, and which of them a change concerns. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal

from shashin.errors import KubernetesUnavailable
from shashin.kube.resource import Key, KubeObject, key_of, version_of

EventKind = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]


class ObjectCache:
    """The last known object per key."""

    def __init__(self) -> None:
        self._objects: dict[Key, KubeObject] = {}

    @property
    def objects(self) -> Mapping[Key, KubeObject]:
        """A view of the objects, which are shared: never change them."""
        return MappingProxyType(self._objects)

    def replace(self, listed: Iterable[KubeObject]) -> set[Key]:
        """Make a complete list the content; returns the keys that are new, changed or gone."""
        before = self._objects
        self._objects = {key_of(found): found for found in listed}
        kept = before.keys() & self._objects.keys()
        changed = {key for key in kept if _differs(before[key], self._objects[key])}
        return changed | (before.keys() ^ self._objects.keys())

    def apply(self, kind: EventKind, found: KubeObject) -> set[Key]:
        """Apply a watch event; returns the keys that it changed, none for a repeat."""
        if kind == "BOOKMARK":
            return set()
        key = key_of(found)
        if kind == "DELETED":
            return {key} if self._objects.pop(key, None) is not None else set()
        before = self._objects.get(key)
        self._objects[key] = found
        return {key} if before is None or _differs(before, found) else set()


def _differs(one: KubeObject, other: KubeObject) -> bool:
    # An object that was deleted and created again has another uid.
    return version_of(one) != version_of(other) or _uid(one) != _uid(other)


def _uid(found: KubeObject) -> str:
    uid: str = found["metadata"].get("uid", "")
    return uid


def check_object(found: object, what: str) -> KubeObject:
    """Return an object that has a name.

    Raises:
        KubernetesUnavailable: if it is anything else, as from a proxy or a broken server.
    """
    metadata = found.get("metadata") if isinstance(found, dict) else None
    if (
        isinstance(found, dict)
        and isinstance(metadata, dict)
        and isinstance(metadata.get("name"), str)
    ):
        return found
    raise KubernetesUnavailable(f"{what} has something that is no object: {str(found)[:100]!r}")
