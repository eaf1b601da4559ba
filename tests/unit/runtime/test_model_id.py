"""Model ids are parts of keys and paths, so only some characters are possible."""

from __future__ import annotations

import pytest

from shashin.errors import SettingsError
from shashin.runtime.settings import ModelSettings, load_settings


@pytest.mark.parametrize(
    "model_id", ["demo-v1", "torchvision-vit_b_16", "shop:resnet50", "2.0", "A" * 100]
)
def test_ids_of_models_are_accepted(model_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHASHIN_MODEL_ID", model_id)
    assert load_settings(ModelSettings).model_id == model_id


@pytest.mark.parametrize(
    "model_id", ["", "..", "../demo-v1", "/srv", "a/b", ".a", "a b", "a\n", "写真", "A" * 101]
)
def test_an_id_that_can_be_no_folder_is_refused_with_what_is_expected(
    model_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHASHIN_MODEL_ID", model_id)
    with pytest.raises(SettingsError, match=r"SHASHIN_MODEL_ID=.* expected 1 to 100 letters"):
        load_settings(ModelSettings)
