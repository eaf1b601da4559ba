"""Settings of the embedder that depend on each other, or on the model."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.embedder.settings import EmbedderSettings
from shashin.errors import SettingsError
from shashin.runtime.settings import load_settings


@pytest.fixture(autouse=True)
def _nothing_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODEL", "REPOSITORY", "QUERY_ZOOMS"):
        monkeypatch.delenv(f"SHASHIN_{name}", raising=False)


@pytest.mark.parametrize(
    ("given", "where_it_helps", "where_it_does_not"),
    [(None, True, False), ("auto", True, False), ("on", True, True), ("off", False, False)],
)
def test_photos_are_zoomed_where_that_helps_the_model_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
    given: str | None,
    where_it_helps: bool,
    where_it_does_not: bool,
) -> None:
    if given is not None:
        monkeypatch.setenv("SHASHIN_QUERY_ZOOMS", given)
    settings = load_settings(EmbedderSettings)
    assert settings.zooms_with(model_zooms=True) == where_it_helps
    assert settings.zooms_with(model_zooms=False) == where_it_does_not


def test_a_model_of_the_repository_needs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHASHIN_MODEL", "repository:shop")
    with pytest.raises(SettingsError, match="SHASHIN_REPOSITORY is not set"):
        load_settings(EmbedderSettings)
    monkeypatch.setenv("SHASHIN_REPOSITORY", "ftp://me:secret@host/x")
    with pytest.raises(SettingsError, match="SHASHIN_REPOSITORY: object store") as refused:
        load_settings(EmbedderSettings)
    assert "secret" not in refused.value.message
    monkeypatch.setenv("SHASHIN_REPOSITORY", Path("/srv/shashin").as_uri())
    assert load_settings(EmbedderSettings).published_model == "shop"


@pytest.mark.parametrize("model", ["repository:", "repository:../x", "repository:a/b"])
def test_a_model_of_the_repository_is_named_by_an_id(
    monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setenv("SHASHIN_MODEL", model)
    with pytest.raises(SettingsError, match=r"SHASHIN_MODEL=.*model id"):
        load_settings(EmbedderSettings)


def test_another_model_does_not_look_at_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHASHIN_REPOSITORY", "what/is/this")
    settings = load_settings(EmbedderSettings)
    assert (settings.model, settings.published_model) == ("demo-v1", None)
