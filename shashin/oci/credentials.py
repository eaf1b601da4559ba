"""Credentials of registries, from the ``config.json`` that ``docker login`` writes.

A secret of type ``kubernetes.io/dockerconfigjson`` has the same content. Entries that name a program
to ask (``credHelpers``, ``credsStore``) are refused by name: nothing here runs programs.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shashin.errors import SettingsError
from shashin.oci.references import DOCKER_HUB, Repository

CONFIG_FILE = "config.json"
"""Its name in the folder that ``DOCKER_CONFIG`` names."""

_HUB_KEYS = {"index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"}


@dataclass(frozen=True)
class Credentials:
    """A user's password, or a token in place of both; neither is ever printed."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    """Exchanged for a token of the registry (OAuth 2 ``refresh_token``)."""
    registry_token: str = field(default="", repr=False)
    """Sent as it is."""

    @property
    def basic(self) -> str:
        """The value of the header ``Authorization`` with user and password."""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


class DockerConfig:
    """The credentials of one ``config.json``, by registry or by a repository's prefix."""

    def __init__(self, auths: Mapping[str, Credentials], helped: Mapping[str, str]) -> None:
        self._auths = auths
        self._helped = helped
        """Registries for which a program would have to be asked, with its name; "" for all."""

    def __repr__(self) -> str:
        return f"DockerConfig({', '.join(sorted(self._auths)) or 'nobody'})"

    def credentials(self, repository: Repository) -> Credentials | None:
        """Return what to log in with: those of the longest prefix, as Kubernetes does; None: nobody.

        Raises:
            SettingsError: when only a program knows them.
        """
        candidate = str(repository)
        while candidate:
            if candidate in self._auths:
                return self._auths[candidate]
            candidate = candidate.rpartition("/")[0]
        program = self._helped.get(repository.registry, self._helped.get("", ""))
        if program:
            raise SettingsError(
                f"the Docker configuration has no credentials of {repository.registry} itself, only "
                f"the program docker-credential-{program}, which is not run: write them under 'auths', "
                "as docker login does without a credential store"
            )
        return None


def read_docker_config(path: Path) -> DockerConfig:
    """Read a ``config.json``; a folder stands for the one in it.

    Raises:
        SettingsError: when there is none, or it is not such a document. No message quotes it.
    """
    if path.is_dir():
        path /= CONFIG_FILE
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read: {error.strerror or error}; expected Docker's config.json with "
            "credentials of registries"
        ) from error
    except ValueError as error:
        raise SettingsError(f"{path} is not JSON: expected Docker's config.json") from error
    auths = document.get("auths", {}) if isinstance(document, dict) else None
    if not isinstance(auths, dict):
        raise SettingsError(f"{path} is not Docker's config.json: expected an object with 'auths'")
    found = {}
    for key, entry in auths.items():
        credentials = _credentials(entry, f"'auths' of {key!r} in {path}")
        if credentials is not None:
            found[_plain_key(key)] = credentials
    helpers = document.get("credHelpers", {})
    helped = {"": str(document.get("credsStore") or "")}
    if isinstance(helpers, dict):
        helped |= {_plain_key(key): str(program) for key, program in helpers.items()}
    return DockerConfig(found, {key: program for key, program in helped.items() if program})


def _plain_key(key: str) -> str:
    """Return a key without what old clients wrote around the registry: a scheme, /v1/ or /v2/."""
    plain = key.removeprefix("https://").removeprefix("http://").rstrip("/")
    for version in ("/v1", "/v2"):
        plain = plain.removesuffix(version)
    host, slash, path = plain.partition("/")
    return f"{DOCKER_HUB if host in _HUB_KEYS else host}{slash}{path}"


def _credentials(entry: Any, where: str) -> Credentials | None:
    if not isinstance(entry, dict):
        raise SettingsError(f"{where}: expected an object with 'auth' or 'username'")
    texts = {name: entry.get(name) or "" for name in _FIELDS}
    if not all(isinstance(value, str) for value in texts.values()):
        raise SettingsError(f"{where}: expected texts for {', '.join(_FIELDS)}")
    username, password = texts["username"], texts["password"]
    if texts["auth"]:
        try:
            pair = base64.b64decode(texts["auth"], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise SettingsError(f"{where}: 'auth' is not base64 of USER:PASSWORD") from error
        username, colon, password = pair.partition(":")
        if not (colon and username):
            raise SettingsError(f"{where}: 'auth' is not base64 of USER:PASSWORD")
        password = password.rstrip("\0")
    if not (username or texts["identitytoken"] or texts["registrytoken"]):
        return None  # as docker login leaves it with a credential store
    return Credentials(username, password, texts["identitytoken"], texts["registrytoken"])


_FIELDS = ("auth", "username", "password", "identitytoken", "registrytoken")
