"""Opening discovery URIs, and the errors for invalid ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.indexer.settings import IndexerSettings
from services.router.settings import RouterSettings
from shashin.discovery.open import open_discovery
from shashin.discovery.protocol import Endpoint
from shashin.errors import SettingsError, UserError
from shashin.runtime.settings import ServiceSettings, load_settings
from tests.support.running_service import ROOT

ENTRY = {"name": "a", "role": "embedder", "address": "127.0.0.1:1"}


@pytest.mark.parametrize("name", ["discovery.json", "a b%20#?.json", "写真"])
async def test_a_file_is_named_by_its_uri(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(json.dumps({"endpoints": [ENTRY]}))
    discovery = open_discovery(path.as_uri())
    assert await discovery.endpoints() == [Endpoint("a", "embedder", "127.0.0.1:1")]
    await discovery.close()


@pytest.mark.parametrize("uri", ["FILE:///srv/none.json", "Static:indexer=h:1"])
async def test_the_scheme_may_be_in_capitals(uri: str) -> None:
    discovery = open_discovery(uri)
    assert len(await discovery.endpoints()) == uri.startswith("S")
    await discovery.close()


WRONG = [
    ("/srv/discovery.json", "a path, but a URI is expected: file:///srv/discovery.json"),
    ("discovery.json", "expected file:///ABSOLUTE/FILE, kubernetes:///NAMESPACE or static:"),
    ("", "expected file:///ABSOLUTE/FILE, kubernetes:///NAMESPACE or static:"),
    ("static", "expected file:///ABSOLUTE/FILE, kubernetes:///NAMESPACE or static:"),
    ("http://127.0.0.1/", "expected file:///ABSOLUTE/FILE, kubernetes:///NAMESPACE or static:"),
    ("file:discovery.json", "not the URI of an absolute file, expected file:///ABSOLUTE/FILE"),
    ("file://discovery.json", "not the URI of an absolute file"),
    ("file://host/srv/discovery.json", "not the URI of an absolute file"),
    ("file:///srv/state/", "not the URI of an absolute file"),
    ("file:///srv/d.json?x=1", "not the URI of an absolute file"),
    ("file:///srv/d.json#x", "not the URI of an absolute file"),
    ("file://[", "not the URI of an absolute file"),
    ("kubernetes:", "not the URI of a namespace, expected kubernetes:///NAMESPACE"),
    ("kubernetes:shop", "not the URI of a namespace"),
    ("kubernetes://shop", "not the URI of a namespace"),
    ("kubernetes:///Shop", "not the URI of a namespace"),
    ("kubernetes:///shop/", "not the URI of a namespace"),
    ("kubernetes:///shop?x=1", "not the URI of a namespace"),
    ("kubernetes:///-shop", "not the URI of a namespace"),
    ("static:indexer=h:1,Embedder=h:2", "endpoint 'Embedder=h:2' is invalid"),
]


@pytest.mark.parametrize(("uri", "why"), WRONG)
def test_an_invalid_uri_is_rejected_with_the_expected_form(uri: str, why: str) -> None:
    with pytest.raises(UserError) as refused:
        open_discovery(uri)
    assert why in refused.value.message


@pytest.mark.parametrize("settings", [RouterSettings, IndexerSettings])
@pytest.mark.parametrize(("uri", "why"), WRONG)
def test_a_service_names_the_variable_and_its_value(
    settings: type[ServiceSettings], uri: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"REPOSITORY": "file:///srv", "WORK_FOLDER": "/w", "DISCOVERY": uri}.items():
        monkeypatch.setenv(f"SHASHIN_{name}", value)
    with pytest.raises(SettingsError) as refused:
        load_settings(settings)
    assert refused.value.message.startswith(f"invalid settings: SHASHIN_DISCOVERY={uri!r}: ")
    assert why in refused.value.message


@pytest.mark.parametrize("name", ["router", "indexer"])
def test_a_path_instead_of_a_uri_exits_with_2(name: str) -> None:
    variables: dict[str, Any] = {
        "SHASHIN_DISCOVERY": "/srv/discovery.json",
        "SHASHIN_REPOSITORY": "file:///srv/repository",
        "SHASHIN_WORK_FOLDER": "/srv/work",
    }
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("SHASHIN_")}
    process = subprocess.run(
        [sys.executable, "-m", f"services.{name}"],
        env={**inherited, **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert process.returncode == 2
    (line,) = process.stderr.splitlines()
    assert line == (
        f"{name}: invalid settings: SHASHIN_DISCOVERY='/srv/discovery.json': a path, but a URI "
        "is expected: file:///srv/discovery.json"
    )
