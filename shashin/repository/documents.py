"""Reads the small JSON documents that the repository keeps under ``serving/``."""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import TypeAdapter

from shashin.errors import CorruptShard, UnknownFormat

T = TypeVar("T")


def read_document(data: bytes, adapter: TypeAdapter[T], *, known: str, key: str, what: str) -> T:
    """Return the document of format ``known`` that is stored under ``key``; ``what`` is its kind.

    Raises:
        UnknownFormat: when it has another format version.
        CorruptShard: when it is not a valid document.
    """
    try:
        document = json.loads(data)
        found = document.pop("format")
        if found != known:
            raise UnknownFormat(
                f"{key} has format {found!r}; this version reads {known!r}: upgrade the reader"
            )
        return adapter.validate_python(document)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptShard(f"{key} is not a {what}: {error!r}") from error
