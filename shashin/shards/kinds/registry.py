"""The index kinds by name. Each is imported on demand, so that a service needs only the libraries
of the kinds that it uses.

To add a kind, add a module with a ``KIND`` and its name to ``names``: the tests in
``tests/contract/kinds`` then cover it too.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import cast

from shashin.errors import UnknownFormat, UserError
from shashin.shards.format.index_spec import IndexSpec
from shashin.shards.kinds.names import MODULES
from shashin.shards.kinds.protocol import (
    GrowingKind,
    IndexKind,
    QuantizedKind,
    SearchableIndex,
)

DEFAULT_KIND = "ivf-sq4"
"""The default kind of open shards."""

DEFAULT_SEALED_KIND = "ivf-sq4"
"""The default kind of what an indexer seals."""

DEFAULT_BUILT_KIND = "ivf-sq4"
"""The default kind for builds."""


GROWING_KINDS = ("ivf-sq4", "usearch-hnsw", "flat-f16")
"""Those whose indexes can be searched while they grow, as an indexer needs."""


def index_kind(name: str) -> IndexKind:
    """Return a kind with its default parameters.

    Raises:
        UserError: when no kind has this name, or its library cannot be loaded.
    """
    if name not in MODULES:
        raise UserError(f"no index kind is named {name!r}: expected {' or '.join(MODULES)}")
    try:
        return _imported(name)
    except ImportError as error:
        raise UserError(
            f"index kind {name!r} needs a library that cannot be loaded: {error}; install what the "
            "lock file of the service names, or choose another kind"
        ) from error


def _imported(name: str) -> IndexKind:
    return cast("IndexKind", import_module(MODULES[name]).KIND)


def growing_kind(name: str) -> GrowingKind:
    """Return a kind that open shards can use.

    Raises:
        UserError: when no kind has this name, or its indexes cannot grow.
    """
    kind = index_kind(name)
    if not hasattr(kind, "growing"):
        raise UserError(
            f"an index of kind {name!r} cannot be searched while it grows: an indexer cannot use it"
        )
    return cast("GrowingKind", kind)


def with_quantizer(kind: IndexKind, path: Path | None, dimensions: int) -> IndexKind:
    """Return the kind for indexes of a model's quantizer, if it uses one; None if there is none yet.

    Raises:
        CorruptShard: when the file is not a quantizer of so many dimensions.
    """
    if path is None or not isinstance(kind, QuantizedKind):
        return kind
    from shashin.shards.kinds.quantizer import Quantizer

    return kind.with_quantizer(Quantizer.open(path, dimensions))


def training(kind: IndexKind) -> IndexKind:
    """Return the kind whose builders train a quantizer from many rows, where they lack a fine one."""
    return kind.training() if isinstance(kind, QuantizedKind) else kind


def open_index(spec: IndexSpec, folder: Path) -> SearchableIndex:
    """Open an index of the kind that its manifest names.

    Raises:
        UnknownFormat: when this version does not support the kind or the spec, or the kind's library
            cannot be loaded.
        CorruptShard: when a file is missing or does not match the spec.
    """
    if spec.kind not in MODULES:
        raise UnknownFormat(
            f"the index in {folder} is of kind {spec}; this version reads "
            f"{' and '.join(MODULES)}: upgrade the reader or rebuild the shard"
        )
    try:
        kind = _imported(spec.kind)
    except ImportError as error:
        raise UnknownFormat(
            f"the index in {folder} is of kind {spec.kind}, and its library cannot be loaded: {error}; "
            "install what the reader's lock file names, or rebuild the shard with another kind"
        ) from error
    return kind.open(spec, folder)
