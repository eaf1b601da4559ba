"""``shashin model publish`` in one process, with a folder as the model repository."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from shashin.cli.app import app
from shashin.model.loading import DEMO, LITE, shipped_checkpoint
from tests.support.second_model import DIMENSIONS, MODEL, save_second_model


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "repository"


def publish(model: object, repository: Path, *more: str) -> Result:
    arguments = ["model", "publish", str(model), "--repository", repository.as_uri(), *more]
    return CliRunner().invoke(app, arguments)


def stored(repository: Path) -> dict[str, bytes]:
    folder = repository / "models"
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_models_are_published_under_their_own_ids(repository: Path, tmp_path: Path) -> None:
    own = tmp_path / "any-name.pt"
    save_second_model(own)
    for model, path, model_id, dimensions in (
        (DEMO, shipped_checkpoint(DEMO), DEMO, 128),
        (LITE, shipped_checkpoint(LITE), LITE, 256),
        (own, own, MODEL, DIMENSIONS),
    ):
        published = publish(model, repository, "--json")
        assert published.exit_code == 0, published.output
        content = path.read_bytes()
        document: dict[str, Any] = json.loads(published.stdout)
        assert document == {
            "model": model_id,
            "dimensions": dimensions,
            "key": f"models/{model_id}/checkpoint.pt",
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        assert stored(repository)[f"{model_id}/checkpoint.pt"] == content
    before = stored(repository)
    assert len(before) == 6
    again = publish(own, repository)
    assert again.exit_code == 0
    assert f"SHASHIN_MODEL=repository:{MODEL}" in again.output
    assert stored(repository) == before


def test_what_is_no_checkpoint_or_another_one_of_the_id_is_refused(
    repository: Path, tmp_path: Path
) -> None:
    own, retrained, newer = (tmp_path / f"{name}.pt" for name in ("own", "retrained", "newer"))
    save_second_model(own)
    assert publish(own, repository).exit_code == 0
    before = stored(repository)
    document = torch.load(own, weights_only=True)
    torch.save({**document, "zooms": True}, retrained)
    torch.save({**document, "format": 99}, newer)
    for model, problem in (
        (retrained, f"models/{MODEL}/model.json is of another checkpoint"),
        (newer, "has checkpoint format 99"),
        (tmp_path / "none.pt", "unknown model"),
        ("torchvision:resnet50", "is no checkpoint"),
        (f"repository:{MODEL}", "is no checkpoint"),
    ):
        refused = publish(model, repository)
        assert refused.exit_code in {1, 2}
        assert problem in refused.output
    assert stored(repository) == before
