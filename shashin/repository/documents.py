"""Reads the small JSON documents that the repository keeps under ``serving/``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TypeVar

from pydantic import TypeAdapter

from shashin.errors import CorruptShard, UnknownFormat

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
