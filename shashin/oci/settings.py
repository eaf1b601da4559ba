"""The settings of a service that works with registries of images."""

from __future__ import annotations

from pathlib import Path

from pydantic import AliasChoices, Field, field_validator

from shashin.oci.access import RegistryAccess, registry_access
from shashin.oci.references import parse_repository
from shashin.runtime.settings import ServiceSettings, validated_by


class RegistrySettings(ServiceSettings):
    """How registries are reached."""

    docker_config: Path | None = Field(
        None,
        validation_alias=AliasChoices("SHASHIN_DOCKER_CONFIG", "DOCKER_CONFIG"),
        description="Docker's config.json with credentials of registries under 'auths', or the "
        "folder with it; without it registries are used anonymously.",
    )
    registry_ca_file: Path | None = Field(
        None,
        description="PEM file of certificate authorities to trust besides those of the system.",
    )
    registry_plain_http: str = Field(
        "",
        description="Registries, HOST:PORT, comma-separated, that are spoken to without TLS; only "
        "for a network that nobody else can reach.",
    )

    registry_google: str = Field(
        "",
        description="Registries, such as europe-docker.pkg.dev, comma-separated, that are logged in to "
        "with the Google account of the pod's service account.",
    )

    @field_validator("registry_plain_http", "registry_google")
    @classmethod
    def _are_registries(cls, value: str) -> str:
        for registry in _listed(value):
            validated_by(parse_repository, f"{registry}/any")
        return value

    @property
    def access(self) -> RegistryAccess:
        """The access that these settings describe.

        Raises:
            SettingsError: when the Docker configuration cannot be read.
        """
        return registry_access(
            docker_config=self.docker_config,
            ca_file=self.registry_ca_file,
            plain_http=frozenset(_listed(self.registry_plain_http)),
            google=frozenset(_listed(self.registry_google)),
        )


def _listed(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]
