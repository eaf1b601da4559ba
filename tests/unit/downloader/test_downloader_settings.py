"""Folders that photos may be read from: a form that no path can break."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.downloader.settings import DownloaderSettings
from shashin.errors import SettingsError
from shashin.runtime.settings import load_settings


@pytest.mark.parametrize(
    ("value", "folders"),
    [
        ("", ()),
        ("/srv/my photos, all", ("/srv/my photos, all",)),
        ('["/a:b", "/c, /d"]', ("/a:b", "/c, /d")),
        ("[]", ()),
    ],
)
def test_photo_folders_are_one_path_or_a_json_list(
    monkeypatch: pytest.MonkeyPatch, value: str, folders: tuple[str, ...]
) -> None:
    monkeypatch.setenv("SHASHIN_PHOTO_ROOTS", value)
    assert load_settings(DownloaderSettings).roots() == tuple(map(Path, folders))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/a:/b", "one path or several"),
        ("/a,/b", "one path or several"),
        ("photos", "'photos' is not an absolute path"),
        ('["/a", ""]', "'' is not an absolute path"),
        ("[/a]", "not a JSON list"),
        ('[["/a"]]', "a JSON list of folders, such as"),
    ],
)
def test_any_other_value_is_refused_with_the_form_to_use(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: str
) -> None:
    monkeypatch.setenv("SHASHIN_PHOTO_ROOTS", value)
    with pytest.raises(SettingsError, match=f"SHASHIN_PHOTO_ROOTS=.*{expected}"):
        load_settings(DownloaderSettings)


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("PHOTO_HOSTS", "https://img.example.com", "is not a host"),
        ("PHOTO_BUCKETS", "photos", "is not a bucket: expected s3://BUCKET"),
        ("PHOTO_PRIVATE_NETWORKS", "10.0.0.1/8", "expected a network such as"),
        ("CACHE_FOLDER", "cache", "'cache' is not an absolute path"),
        ("MAX_BYTES", "999999999", "more than SHASHIN_ORIGINAL_BYTES=268435456"),
    ],
)
def test_a_wrong_source_or_cache_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(f"SHASHIN_{variable}", value)
    with pytest.raises(SettingsError, match=f"SHASHIN_{variable}=.*{expected}"):
        load_settings(DownloaderSettings)


def test_nothing_outside_may_be_read_and_nothing_is_cached_unless_it_is_set() -> None:
    settings = load_settings(DownloaderSettings)
    assert (settings.hosts(), settings.private_networks(), settings.buckets()) == ((), (), ())
    assert settings.cache() is None
