"""Resources of the Kubernetes API, and their paths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import quote

KubeObject: TypeAlias = dict[str, Any]
"""An object as the API's JSON has it."""

Key: TypeAlias = tuple[str, str]
"""Namespace and name of an object; the namespace of a cluster-wide one is empty."""

OWN_NAMESPACE = ""
"""The namespace of the client's pod, or that of its kubeconfig's context."""


@dataclass(frozen=True)
class Resource:
    """A kind of objects."""

    group: str
    """Empty for the core group."""
    version: str
    plural: str
    """As in paths, such as ``endpointslices``."""

    @property
    def api_version(self) -> str:
        """The ``apiVersion`` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """Return the path of an object, or of all objects if there is no name.

        ``namespace`` is None for cluster-wide objects, and to list those of all namespaces.
        """
        root = ("apis", self.group, self.version) if self.group else ("api", self.version)
        within = () if namespace is None else ("namespaces", namespace)
        parts = (*root, *within, self.plural, *filter(None, (name, subresource)))
        return "/" + "/".join(quote(part, safe="") for part in parts)


@dataclass(frozen=True)
class Request:
    """What is asked of the API, as errors name it."""

    verb: str
    """As in RBAC rules: get, list, watch, create, update, patch or delete."""
    resource: Resource
    namespace: str | None
    name: str = ""
    subresource: str = ""

    @property
    def path(self) -> str:
        """The path that it goes to."""
        name = "" if self.verb == "create" else self.name
        return self.resource.path(self.namespace, name, self.subresource)

    def __str__(self) -> str:
        of = f"{self.resource}/{self.subresource}" if self.subresource else f"{self.resource}"
        named = f" {self.name!r}" if self.name else ""
        where = "in the cluster" if self.namespace is None else f"in namespace {self.namespace!r}"
        return f"{self.verb} {of}{named} {where}"


def key_of(found: KubeObject) -> Key:
    """Return an object's key."""
    metadata = found["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def version_of(found: KubeObject) -> str:
    """Return an object's resource version, which has no order that a client may rely on."""
    version: str = found["metadata"].get("resourceVersion", "")
    return version
