"""Models: loading, rejected checkpoints, and the recall of the default model."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shashin_catalogue import DEMO_NUMBERS, product, render_photo
from typer.testing import CliRunner

from shashin.cli.app import app
from shashin.errors import ModelError, UnknownModel
from shashin.model.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from shashin.model.embedder import PhotoEmbedder, embedder_of, square
from shashin.model.evaluation import EvaluationConfig, evaluate
from shashin.model.loading import (
    SHIPPED,
    describe_model,
    load_embedder,
    load_published,
    shipped_checkpoint,
)
from shashin.model.network import PhotoNetwork
from shashin.model.training import TrainingConfig, contrastive_loss, train
from shashin.model_space import ModelSpace


@pytest.fixture(scope="module")
def demo() -> PhotoEmbedder:
    return load_embedder("demo-v1")


def photo_of(number: int, photo: int) -> Image.Image:
    data = render_photo(product(4, DEMO_NUMBERS[number]), photo)
    return Image.open(io.BytesIO(data)).convert("RGB")


@pytest.mark.parametrize("model", SHIPPED)
def test_a_shipped_model_is_described_without_loading_it(model: str) -> None:
    described, loaded = describe_model(model), load_embedder(model)
    assert (loaded.model_id, loaded.dimensions) == (described.model_id, described.dimensions)


@pytest.mark.parametrize("model", SHIPPED)
def test_a_shipped_checkpoint_is_small_enough_for_a_repository(model: str) -> None:
    assert shipped_checkpoint(model).stat().st_size <= 8_000_000


def test_vectors_have_unit_length_and_do_not_depend_on_the_batch(demo: PhotoEmbedder) -> None:
    photos = [photo_of(number, 0) for number in range(7)]
    photos.append(Image.new("RGB", (400, 120), "teal"))
    together = demo.embed(photos)
    assert together.shape == (8, demo.dimensions)
    assert together.dtype == np.float32
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(8), abs=1e-5)
    alone = np.concatenate([demo.embed([photo]) for photo in photos])
    assert together == pytest.approx(alone, abs=1e-4)
    assert demo.embed([]).shape == (0, demo.dimensions)


def test_the_default_model_finds_unseen_products_far_better_than_colours_do(
    demo: PhotoEmbedder, tmp_path: Path
) -> None:
    config = EvaluationConfig(products=150, photos=2, queries=150)
    found = evaluate(demo, tmp_path, lambda *_: None, config)
    assert found.gallery_photos == 300
    assert found.model.photos_at_10 >= 0.95
    assert found.model.photos_at_1 > found.histogram.photos_at_1 + 0.2


@pytest.mark.parametrize("size", [(100, 100), (300, 100), (50, 400), (1, 1), (1, 300)])
def test_photos_of_any_shape_become_squares(size: tuple[int, int]) -> None:
    made = square(Image.new("RGB", size, (10, 200, 30)), 112)
    assert made.shape == (112, 112, 3)
    assert (made == (10, 200, 30)).all()


def test_a_small_training_run_learns_and_its_checkpoint_loads(tmp_path: Path) -> None:
    config = TrainingConfig(
        model_id="tiny",
        products=16,
        photos=2,
        epochs=2,
        side=32,
        stored_side=36,
        batch_products=8,
        threads=1,
    )
    losses = []
    checkpoint = train(
        config, tmp_path, lambda p: losses.append(p.loss) if p.loss is not None else None
    )
    path = tmp_path / "tiny.pt"
    save_checkpoint(checkpoint, path)
    loaded = load_embedder(str(path))
    assert loaded.model_id == "tiny"
    assert len(losses) == 4
    photo = photo_of(1, 0)
    kept = embedder_of(checkpoint)
    assert loaded.embed([photo]) == pytest.approx(kept.embed([photo]), abs=0.02)


def test_the_loss_is_lowest_when_photos_of_a_product_are_together() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    together = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    apart = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    assert contrastive_loss(together, labels, 0.1) < contrastive_loss(apart, labels, 0.1)


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("run by a checkpoint",))


def test_a_checkpoint_that_would_run_code_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, write in (("torch", torch.save), ("pickle", _pickled)):
        path = tmp_path / name
        write({"format": 1, "model_id": Hostile()}, path)
        with pytest.raises(ModelError, match=r"rejected|not a checkpoint"):
            read_checkpoint(path)
    assert "run by a checkpoint" not in capsys.readouterr().out


def _parts(network: PhotoNetwork) -> dict[str, object]:
    return {"dimensions": 8, "side": 32, "weights": network.state_dict()}


def _pickled(document: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(document))


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"format": 99}, "format 99; this version reads 1 and 2"),
        ({}, "format None"),
        ([1, 2], "contains a list"),
        ({"format": 1, "model_id": "x"}, "does not match the network"),
        (
            {"format": 1, "model_id": "../x", **_parts(PhotoNetwork(8))},
            "model id '../x' cannot be used",
        ),
        (
            {"format": 1, "model_id": "x", "dimensions": 8, "side": 32, "weights": {}},
            "does not match",
        ),
    ],
)
def test_a_checkpoint_of_another_kind_is_refused_by_name(
    tmp_path: Path, document: object, says: str
) -> None:
    path = tmp_path / "odd.pt"
    torch.save(document, path)
    with pytest.raises(ModelError, match=says):
        read_checkpoint(path)


def test_files_that_are_missing_cut_short_or_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no checkpoint at"):
        read_checkpoint(tmp_path / "missing.pt")
    whole = tmp_path / "whole.pt"
    save_checkpoint(Checkpoint("x", 8, 32, PhotoNetwork(8)), whole)
    (tmp_path / "cut.pt").write_bytes(whole.read_bytes()[:5000])
    (tmp_path / "text.pt").write_text("hello")
    for name in ("cut.pt", "text.pt"):
        with pytest.raises(ModelError, match=name):
            read_checkpoint(tmp_path / name)


def test_a_published_model_has_to_be_what_it_was_published_as(tmp_path: Path) -> None:
    path = tmp_path / "shop.pt"
    save_checkpoint(Checkpoint("shop", 8, 32, PhotoNetwork(8)), path)
    loaded = load_published(path, ModelSpace("shop", 8))
    assert (loaded.model_id, loaded.dimensions) == ("shop", 8)
    for space in (ModelSpace("other", 8), ModelSpace("shop", 16)):
        with pytest.raises(ModelError, match=r"is shop \(8 dimensions\), but was published as"):
            load_published(path, space)
    document = torch.load(path, weights_only=True)
    torch.save({**document, "format": 99}, path)
    with pytest.raises(ModelError, match="has checkpoint format 99"):
        load_published(path, ModelSpace("shop", 8))


@pytest.mark.parametrize("name", ["demo-v2", "torchvision:nothing", "nowhere/at-all.pt"])
def test_an_unknown_name_is_rejected_with_the_known_ones(name: str) -> None:
    with pytest.raises(UnknownModel, match="resnet50"):
        load_embedder(name)


def test_a_torchvision_backbone_without_weights_reports_that_it_needs_network_access(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    with pytest.raises(
        ModelError, match=r"torchvision:resnet18 cannot be downloaded .* needs network access"
    ):
        load_embedder("torchvision:resnet18")


@pytest.mark.parametrize(("name", "dimensions"), [("resnet18", 512), ("efficientnet_b0", 1280)])
def test_a_torchvision_backbone_gives_its_features(
    monkeypatch: pytest.MonkeyPatch, name: str, dimensions: int
) -> None:
    from torchvision.models import get_model as real_get_model

    # The weights need a network; what is shown here is everything around them.
    monkeypatch.setattr(
        "torchvision.models.get_model", lambda name, weights: real_get_model(name, weights=None)
    )
    loaded = load_embedder(f"torchvision:{name}")
    assert (loaded.model_id, loaded.dimensions) == (f"torchvision-{name}", dimensions)
    vectors = loaded.embed([Image.new("RGB", (300, 200), "red"), Image.new("RGB", (50, 90))])
    assert vectors.shape == (2, dimensions)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(2), abs=1e-4)


def test_the_command_trains_and_evaluates_a_model(tmp_path: Path) -> None:
    output, work = tmp_path / "mine.pt", tmp_path / "work"
    trained = CliRunner().invoke(
        app,
        [
            *("model", "train", "--output", str(output), "--work", str(work)),
            *("--products", "6", "--photos", "2", "--epochs", "1"),
        ],
    )
    assert trained.exit_code == 0, trained.output
    assert "shashin model eval" in trained.stdout
    evaluated = CliRunner().invoke(
        app,
        [
            *("model", "eval", str(output), "--work", str(work)),
            *("--products", "6", "--queries", "3", "--json"),
        ],
    )
    assert evaluated.exit_code == 0, evaluated.output
    assert '"model_id": "my-model"' in evaluated.stdout
