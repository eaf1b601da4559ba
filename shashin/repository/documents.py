"""Reads and replaces the small JSON documents that the repository keeps under ``serving/``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TypeVar

from pydantic import TypeAdapter

from shashin.errors import CorruptShard, ObjectNotFound, PreconditionFailed, UnknownFormat
from shashin.objectstore.protocol import ObjectStore, OnlyIf

T = TypeVar("T")


def read_document(
    data: bytes, adapter: TypeAdapter[T], *, known: Sequence[str], key: str, what: str
) -> T:
    """Return the document in a ``known`` format that is stored under ``key``; ``what`` is its kind.

    Raises:
        UnknownFormat: when it has an unknown format.
        CorruptShard: when it is not a valid document.
    """
    try:
        document = json.loads(data)
        found = document.pop("format")
        if found not in known:
            raise UnknownFormat(
                f"{key} has format {found!r}; this version reads {' and '.join(known)}: upgrade "
                "the reader"
            )
        return adapter.validate_python(document)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptShard(f"{key} is not a {what}: {error!r}") from error


async def update_document(
    store: ObjectStore, key: str, change: Callable[[bytes | None], bytes | None]
) -> None:
    """Replace a document by what ``change`` makes of the stored one, None if there is none.

    It is called again if another process has written meanwhile. If it returns None, the document stays.

    Raises:
        ObjectStoreError: when the store does not respond or refuses.
    """
    while True:
        stored: bytes | None
        try:
            stored, version = await store.read(key)
        except ObjectNotFound:
            stored, only_if = None, OnlyIf.absent()
        else:
            only_if = OnlyIf.unchanged(version)
        new = change(stored)
        if new is None:
            return
        try:
            await store.write(key, new, only_if=only_if)
        except PreconditionFailed:
            continue
        return


def partition_of(key: str) -> int:
    """Return the partition whose document this is the key of.

    Raises:
        CorruptShard: when it is not the key of a partition's document.
    """
    number = key.rpartition("/")[2].removesuffix(".json")
    if not number.isdecimal():
        raise CorruptShard(f"{key} is not the key of a partition's document")
    return int(number)
