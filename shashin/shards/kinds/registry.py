"""The index kinds by name. Each is imported when it is asked for, so that a service installs only
the libraries of the kinds that it meets.

A new kind is a module here with a ``KIND`` and its name below: the tests of ``tests/contract/kinds``
then run with it as well.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import cast

from shashin.errors import UnknownFormat, UserError
from shashin.shards.format.index_spec import IndexSpec
from shashin.shards.kinds.protocol import GrowingKind, IndexKind, SearchableIndex

_MODULES = {
    "usearch-hnsw": "shashin.shards.kinds.usearch_hnsw",
    "flat-f16": "shashin.shards.kinds.flat_f16",
}

DEFAULT_KIND = "usearch-hnsw"
"""What indexers seal unless told otherwise."""


def kind_names() -> list[str]:
    """Return every known name."""
    return list(_MODULES)


def index_kind(name: str) -> IndexKind:
    """Return a kind with its default parameters.

    Raises:
        UserError: when no kind has this name.
    """
    if name not in _MODULES:
        raise UserError(f"no index kind is named {name!r}: expected {' or '.join(_MODULES)}")
    return cast("IndexKind", import_module(_MODULES[name]).KIND)


def growing_kind(name: str) -> GrowingKind:
    """Return a kind that open shards can be of.

    Raises:
        UserError: when no such kind has this name, or when its indexes cannot grow.
    """
    kind = index_kind(name)
    if not hasattr(kind, "growing"):
        raise UserError(
            f"an index of kind {name!r} cannot be searched while it grows: an indexer cannot hold it"
        )
    return cast("GrowingKind", kind)


def open_index(spec: IndexSpec, folder: Path) -> SearchableIndex:
    """Open an index of whatever kind its manifest names.

    Raises:
        UnknownFormat: when this version does not know the kind, or cannot read the spec.
        CorruptShard: when a file is missing or is not what the spec says.
    """
    if spec.kind not in _MODULES:
        raise UnknownFormat(
            f"the index in {folder} is of kind {spec}; this version reads "
            f"{' and '.join(_MODULES)}: upgrade the reader or build the shard again"
        )
    return index_kind(spec.kind).open(spec, folder)
