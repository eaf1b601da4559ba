"""Opens the discovery at a URI."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from shashin.discovery.file import FileDiscovery
from shashin.discovery.protocol import Discovery
from shashin.discovery.static import FORM, StaticDiscovery, static_endpoints
from shashin.errors import UserError
from shashin.model_space import ModelSpace

if TYPE_CHECKING:
    from shashin.discovery.kubernetes import KubernetesDiscovery

FILE_FORM = "file:///ABSOLUTE/FILE"
KUBERNETES_FORM = "kubernetes:///NAMESPACE"
"""Without a namespace, the pod's own."""

_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def _open_file(uri: str) -> Discovery:
    rest = uri.partition(":")[2]
    if not rest.startswith("///") or rest.endswith("/") or "?" in rest or "#" in rest:
        raise UserError(f"not the URI of an absolute file, expected {FILE_FORM}")
    return FileDiscovery(Path(unquote(rest[2:])))


def _open_static(uri: str) -> Discovery:
    return StaticDiscovery(static_endpoints(uri.partition(":")[2]))


def _open_kubernetes(uri: str) -> KubernetesDiscovery:
    from shashin.discovery.kubernetes import KubernetesDiscovery

    rest = uri.partition(":")[2]
    namespace = rest.removeprefix("///")
    if namespace == rest or (namespace and _NAMESPACE.fullmatch(namespace) is None):
        raise UserError(
            f"not the URI of a namespace, expected {KUBERNETES_FORM}, or kubernetes:/// for the pod's own"
        )
    return KubernetesDiscovery(namespace)


OPENERS: Mapping[str, Callable[[str], Discovery]] = {
    "file": _open_file,
    "kubernetes": _open_kubernetes,
    "static": _open_static,
}
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
    raise UserError(f"not a discovery URI, expected {FILE_FORM}, {KUBERNETES_FORM} or {FORM}")


async def set_active_model(uri: str, space: ModelSpace) -> None:
    """Have the discovery at ``uri`` name the active model, if nobody else does so.

    On one machine the supervisor copies it from the model repository, and a static list names none.

    Raises:
        UserError: if the URI is invalid.
        KubernetesError: when Kubernetes does not take it; nothing has changed then.
    """
    if uri.partition(":")[0].lower() == "kubernetes":
        await _open_kubernetes(uri).set_active_model(space)
