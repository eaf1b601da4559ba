"""Where thumbnails are is checked at the start, and only the clients of that store are imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from services.downloader.settings import DownloaderSettings
from services.router.settings import RouterSettings
from shashin.errors import SettingsError
from shashin.runtime.settings import load_settings

ROOT = Path(__file__).parents[3]
IMPORTED = """
import os, sys
import services.router.__main__
from services.router.settings import RouterSettings
from shashin.runtime.settings import load_settings
load_settings(RouterSettings)
names = ("botocore", "google.cloud.storage", "shashin.objectstore.file")
print(*(name for name in names if name in sys.modules))
"""


@pytest.mark.parametrize("service", [DownloaderSettings, RouterSettings])
@pytest.mark.parametrize("uri", ["", "file:///srv/web", "gs://bucket", "s3://bucket/web"])
def test_every_object_store_can_be_named_and_none_as_well(
    service: type[DownloaderSettings | RouterSettings], uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHASHIN_DISCOVERY", "static:embedder=127.0.0.1:1")
    monkeypatch.setenv("SHASHIN_THUMBNAILS", uri)
    assert load_settings(service).thumbnails == uri


@pytest.mark.parametrize("uri", ["/srv/web", "https://bucket/web", "gs://"])
def test_what_is_no_object_store_is_refused_by_the_variables_name(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHASHIN_THUMBNAILS", uri)
    with pytest.raises(SettingsError, match=f"SHASHIN_THUMBNAILS='{uri}': .* is not a valid URI"):
        load_settings(DownloaderSettings)


@pytest.mark.parametrize(
    ("uri", "imported"),
    [
        ("", []),
        ("file:///srv/web", ["shashin.objectstore.file"]),
        ("gs://bucket/web", ["google.cloud.storage"]),
        ("s3://bucket/web", ["botocore"]),
    ],
)
def test_a_router_imports_the_client_of_its_own_store_alone(uri: str, imported: list[str]) -> None:
    env = {"SHASHIN_DISCOVERY": "static:embedder=127.0.0.1:1", "SHASHIN_THUMBNAILS": uri}
    found = subprocess.run(
        [sys.executable, "-c", IMPORTED],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == imported
