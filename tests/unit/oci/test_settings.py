from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from shashin.errors import SettingsError
from shashin.oci.references import Repository
from shashin.oci.settings import RegistrySettings


@pytest.fixture(autouse=True)
def no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)


def test_without_settings_registries_are_used_anonymously_and_with_tls() -> None:
    access = RegistrySettings().access
    assert access.config.credentials(Repository("r.example", "a")) is None
    assert access.base_url("r.example:5000") == "https://r.example:5000"
    assert access.base_url("docker.io") == "https://registry-1.docker.io"


@pytest.mark.parametrize("variable", ["DOCKER_CONFIG", "SHASHIN_DOCKER_CONFIG"])
def test_a_login_comes_from_dockers_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    auth = base64.b64encode(b"me:secret").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"r.example": {"auth": auth}}}))
    monkeypatch.setenv(variable, str(tmp_path))
    found = RegistrySettings().access.config.credentials(Repository("r.example", "a"))
    assert found is not None
    assert (found.username, found.password) == ("me", "secret")


def test_only_listed_registries_are_spoken_to_without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHASHIN_REGISTRY_PLAIN_HTTP", "10.0.0.1:5000, localhost:5000")
    access = RegistrySettings().access
    assert access.base_url("10.0.0.1:5000") == "http://10.0.0.1:5000"
    assert access.base_url("10.0.0.1") == "https://10.0.0.1"


def test_a_registry_that_is_none_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHASHIN_REGISTRY_PLAIN_HTTP", "http://r.example")
    with pytest.raises(ValidationError, match="does not name an image"):
        RegistrySettings()


def test_a_file_without_certificates_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("nothing")
    monkeypatch.setenv("SHASHIN_REGISTRY_CA_FILE", str(path))
    with pytest.raises(SettingsError, match=r"ca\.pem has no certificates"):
        RegistrySettings().access.ssl_context()
