"""Where the API server is and who the client is: from a pod or from a kubeconfig."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException, load_kube_config
from kubernetes.aio.config.incluster_config import InClusterConfigLoader

from shashin.errors import KubernetesUnavailable, UserError

POD_FOLDER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the kubelet mounts a pod's token, certificate authority and namespace."""

KUBECONFIG_VARIABLE = "KUBECONFIG"
_HOST_VARIABLE = "KUBERNETES_SERVICE_HOST"
_DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True)
class Access:
    """What a connection needs."""

    configuration: Any
    """A ``Configuration`` of the library; its hook keeps the token current."""
    namespace: str
    """The client's own namespace."""


class Credentials(Protocol):
    """A source of credentials. Creating one does no I/O."""

    async def read(self) -> Access:
        """Read the credentials as they are now.

        Raises:
            UserError: when there are none or they are malformed.
            KubernetesUnavailable: when they cannot be read at the moment.
        """
        ...


class PodCredentials:
    """A service account's token, which the kubelet replaces before it expires."""

    def __init__(
        self, folder: Path = POD_FOLDER, environment: Mapping[str, str] | None = None
    ) -> None:
        self._folder = folder
        self._environment = os.environ if environment is None else environment

    async def read(self) -> Access:
        """Read certificate authority and namespace; the token is read again for every request."""
        configuration = Configuration()
        loader = InClusterConfigLoader(
            token_filename=str(self._folder / "token"),
            cert_filename=str(self._folder / "ca.crt"),
            try_refresh_token=False,
            environ=self._environment,
        )
        try:
            loader.load_and_set(configuration)
            self._read_token(configuration)
            namespace = (self._folder / "namespace").read_text(encoding="utf-8").strip()
        except (ConfigException, OSError, ValueError) as error:
            raise KubernetesUnavailable(
                f"cannot read the pod's service account in {self._folder}: {error}; "
                "automountServiceAccountToken must not be false"
            ) from error
        # A file in memory: reading it costs less than remembering when it was read.
        configuration.refresh_api_key_hook = self._read_token
        return Access(configuration, namespace)

    def _read_token(self, configuration: Any) -> None:
        token = (self._folder / "token").read_text(encoding="utf-8").strip()
        configuration.api_key["BearerToken"] = f"Bearer {token}"


class KubeconfigCredentials:
    """The current context of a kubeconfig, or of several merged ones."""

    def __init__(self, paths: str) -> None:
        self._paths = paths
        """As in ``KUBECONFIG``: separated by colons."""

    async def read(self) -> Access:
        """Read it, and run its credential plugin if it has one."""
        if not self._exists():
            raise UserError(f"no kubeconfig at {self._paths!r}: set {KUBECONFIG_VARIABLE} to one")
        configuration = Configuration()
        try:
            loader = await load_kube_config(
                self._paths, client_configuration=configuration, persist_config=False
            )
            namespace = loader.current_context["context"].get("namespace")
        except asyncio.CancelledError:
            raise
        except (
            Exception
        ) as error:  # the library raises whatever a malformed file makes it stumble on
            raise UserError(
                f"the kubeconfig {self._paths!r} cannot be used: {type(error).__name__}: {error}"
            ) from error
        return Access(configuration, namespace or _DEFAULT_NAMESPACE)

    def _exists(self) -> bool:
        return any(Path(path).expanduser().is_file() for path in self._paths.split(os.pathsep))


class NoCredentials:
    """Neither in a pod nor with a kubeconfig."""

    async def read(self) -> Access:
        """Raise a UserError with what to do."""
        raise UserError(
            f"no Kubernetes API server is known: this is no pod, since {_HOST_VARIABLE} is not set; "
            f"set {KUBECONFIG_VARIABLE} to the path of a kubeconfig"
        )


def credentials_from_environment() -> Credentials:
    """Return those of ``KUBECONFIG``, else of the pod, else of ``~/.kube/config``."""
    if paths := os.environ.get(KUBECONFIG_VARIABLE):
        return KubeconfigCredentials(paths)
    if os.environ.get(_HOST_VARIABLE):
        return PodCredentials()
    usual = Path("~/.kube/config").expanduser()
    return KubeconfigCredentials(str(usual)) if usual.is_file() else NoCredentials()
