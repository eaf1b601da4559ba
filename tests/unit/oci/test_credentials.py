from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from shashin.errors import SettingsError
from shashin.oci.credentials import DockerConfig, read_docker_config
from shashin.oci.references import Repository, parse_repository

SECRET = "hunter2:with a colon"


def auth(user: str, password: str = SECRET) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def config(tmp_path: Path, **document: Any) -> DockerConfig:
    (tmp_path / "config.json").write_text(json.dumps(document))
    return read_docker_config(tmp_path)


def user_of(found: DockerConfig, repository: str) -> str | None:
    credentials = found.credentials(parse_repository(repository))
    return credentials.username if credentials else None


def test_credentials_are_found_by_registry_and_by_the_longest_prefix(tmp_path: Path) -> None:
    found = config(
        tmp_path,
        auths={
            "r.example:5000": {"auth": auth("registry")},
            "r.example:5000/shop": {"username": "shop", "password": SECRET},
        },
    )
    assert user_of(found, "r.example:5000/other/a") == "registry"
    assert user_of(found, "r.example:5000/shop/a") == "shop"
    assert user_of(found, "r.example:5000/shopping/a") == "registry"
    assert user_of(found, "r.example/shop/a") is None
    given = found.credentials(Repository("r.example:5000", "a"))
    assert given is not None
    assert given.password == SECRET


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io", "index.docker.io"])
def test_docker_hub_has_several_keys(tmp_path: Path, key: str) -> None:
    assert user_of(config(tmp_path, auths={key: {"auth": auth("me")}}), "python") == "me"


def test_no_password_is_ever_printed(tmp_path: Path) -> None:
    found = config(
        tmp_path,
        auths={
            "a.example": {"auth": auth("me")},
            "b.example": {"identitytoken": SECRET},
            "c.example": {"registrytoken": SECRET},
        },
    )
    printed = [repr(found)]
    printed += [repr(found.credentials(Repository(f"{r}.example", "a"))) for r in "abc"]
    assert "None" not in printed
    assert not [text for text in printed if SECRET in text or auth("me") in text]


def test_credentials_that_only_a_program_knows_are_refused_by_name(tmp_path: Path) -> None:
    found = config(
        tmp_path,
        auths={"r.example": {}, "own.example": {"auth": auth("me")}},
        credsStore="desktop",
        credHelpers={"gcr.example": "gcloud"},
    )
    with pytest.raises(SettingsError, match=r"r\.example itself.*docker-credential-desktop"):
        found.credentials(Repository("r.example", "a"))
    with pytest.raises(SettingsError, match="docker-credential-gcloud"):
        found.credentials(Repository("gcr.example", "a"))
    assert user_of(found, "own.example/a") == "me"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "is not JSON"),
        ("[]", "expected an object with 'auths'"),
        ('{"auths": []}', "expected an object with 'auths'"),
        ('{"auths": {"r.example": "x"}}', "'auths' of 'r.example'"),
        ('{"auths": {"r.example": {"auth": 1}}}', "expected texts"),
        (f'{{"auths": {{"r.example": {{"auth": "{SECRET}"}}}}}}', "is not base64"),
        (f'{{"auths": {{"r.example": {{"auth": "{auth("")[:4]}"}}}}}}', "is not base64"),
    ],
)
def test_a_wrong_configuration_is_named_and_not_quoted(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(SettingsError, match=why) as raised:
        read_docker_config(path)
    assert str(path) in raised.value.message
    assert SECRET not in raised.value.message


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing\.json cannot be read"):
        read_docker_config(tmp_path / "missing.json")
