"""Opens the discovery at a URI."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote

from shashin.discovery.file import FileDiscovery
from shashin.discovery.protocol import Discovery
from shashin.discovery.static import FORM, StaticDiscovery, static_endpoints
from shashin.errors import UserError

FILE_FORM = "file:///ABSOLUTE/FILE"


def _open_file(uri: str) -> Discovery:
    rest = uri.partition(":")[2]
    if not rest.startswith("///") or rest.endswith("/") or "?" in rest or "#" in rest:
        raise UserError(f"not the URI of an absolute file, expected {FILE_FORM}")
    return FileDiscovery(Path(unquote(rest[2:])))


def _open_static(uri: str) -> Discovery:
    return StaticDiscovery(static_endpoints(uri.partition(":")[2]))


OPENERS: Mapping[str, Callable[[str], Discovery]] = {"file": _open_file, "static": _open_static}
"""By scheme: creates a discovery from the whole URI, without any I/O.

An opener that needs an extra library imports it when called.
"""


def open_discovery(uri: str) -> Discovery:
    """Return the discovery at ``uri``.

    Raises:
        UserError: if the URI is invalid, with the expected form.
    """
    scheme, colon, _ = uri.partition(":")
    opener = OPENERS.get(scheme.lower()) if colon else None
    if opener is not None:
        return opener(uri)
    if uri.startswith("/"):
        raise UserError(f"a path, but a URI is expected: {Path(uri).as_uri()}")
    raise UserError(f"not a discovery URI, expected {FILE_FORM} or {FORM}")
