"""How registries are reached: credentials, trusted authorities, plain HTTP where it is permitted."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from shashin.errors import SettingsError
from shashin.oci.credentials import DockerConfig, read_docker_config
from shashin.oci.references import DOCKER_HUB

_HUB_HOST = "registry-1.docker.io"


@dataclass(frozen=True)
class RegistryAccess:
    """Of one process, for all registries."""

    config: DockerConfig = field(default_factory=lambda: DockerConfig({}, {}))
    """Who to log in as."""
    ca_file: Path | None = None
    """PEM file of authorities to trust besides those of the system."""
    plain_http: frozenset[str] = frozenset()
    """Registries, HOST:PORT as in references, that speak HTTP without TLS."""
    google: frozenset[str] = frozenset()
    """Registries that are logged in to with the account of a pod on Google Cloud."""

    def base_url(self, registry: str) -> str:
        """Return the start of a registry's URLs: scheme and host."""
        scheme = "http" if registry in self.plain_http else "https"
        return f"{scheme}://{_HUB_HOST if registry == DOCKER_HUB else registry}"

    def ssl_context(self) -> ssl.SSLContext:
        """Return the context of TLS connections.

        Raises:
            SettingsError: when ``ca_file`` cannot be read, or has no certificate.
        """
        context = ssl.create_default_context()
        if self.ca_file is not None:
            try:
                context.load_verify_locations(cafile=self.ca_file)
            except (OSError, ssl.SSLError) as error:
                raise SettingsError(
                    f"{self.ca_file} has no certificates of authorities to trust: {error}; expected a "
                    "PEM file"
                ) from error
        return context


def registry_access(
    *,
    docker_config: Path | None,
    ca_file: Path | None,
    plain_http: frozenset[str],
    google: frozenset[str] = frozenset(),
) -> RegistryAccess:
    """Return the access that settings describe; without a Docker configuration it is anonymous.

    Raises:
        SettingsError: when the configuration cannot be read.
    """
    config = DockerConfig({}, {}) if docker_config is None else read_docker_config(docker_config)
    return RegistryAccess(config, ca_file, plain_http, google)
