"""The model for real photos, on the few that ship: what it finds, what a fit brings, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shashin_catalogue import real_photos_folder
from typer.testing import CliRunner

from shashin.cli.app import app
from shashin.errors import ModelError, PhotoFolderError
from shashin.model.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from shashin.model.contact_sheet import contact_sheet
from shashin.model.embedder import PhotoEmbedder, embedder_of
from shashin.model.fitting import FitConfig, fit
from shashin.model.head import HeadConfig
from shashin.model.lite_network import VARIANTS, LiteBackbone, LiteVariant
from shashin.model.loading import LITE, load_embedder, shipped_checkpoint
from shashin.model.network import PhotoNetwork
from shashin.model.photo_evaluation import (
    HASH,
    HISTOGRAM,
    PhotoEvaluation,
    PhotoEvaluationConfig,
    Search,
    evaluate_photos,
)
from shashin.model.photo_folders import ProductPhotos, read_products

CONFIG = PhotoEvaluationConfig(copies=30)
SMALL = HeadConfig(dimensions=16, steps=3)


def quietly(*_: object) -> None:
    pass


@pytest.fixture(scope="module")
def lite() -> PhotoEmbedder:
    return load_embedder(LITE)


@pytest.fixture(scope="module")
def products() -> list[ProductPhotos]:
    return read_products([real_photos_folder()])


@pytest.fixture(scope="module")
def found(lite: PhotoEmbedder, products: list[ProductPhotos]) -> PhotoEvaluation:
    return evaluate_photos([lite, load_embedder("demo-v1")], products, quietly, CONFIG)


def test_the_shipped_photos_are_few_small_and_of_several_kinds(
    products: list[ProductPhotos],
) -> None:
    files = [path for one in products for path in (*one.photos, *one.queries)]
    assert len(products) == 24
    assert sum(path.stat().st_size for path in files) <= 1_500_000
    assert sum(bool(one.queries) for one in products) == 14
    licences = sorted(path.name for path in real_photos_folder().glob("LICENSE-*"))
    assert licences == ["LICENSE-clothing-CC0.txt", "LICENSE-grocery-MIT.txt"]


def test_copies_and_other_views_of_real_products_are_found(found: PhotoEvaluation) -> None:
    recall = found.recall[LITE]
    assert found.queries[Search.OTHER_VIEW] == 14
    assert found.queries[Search.GENTLE_COPY] == 30
    assert recall[Search.GENTLE_COPY].at_1 >= 0.93
    assert recall[Search.HARD_COPY].at_1 >= 0.75
    assert recall[Search.HARD_COPY].at_10 >= 0.9
    assert recall[Search.OTHER_VIEW].at_1 >= 0.6
    assert recall[Search.OTHER_VIEW].at_10 >= 0.9


def test_it_finds_more_than_simpler_methods_and_the_default_model(found: PhotoEvaluation) -> None:
    best = found.recall[LITE]
    for name in ("demo-v1", HISTOGRAM, HASH):
        for kind in (Search.HARD_COPY, Search.CLUTTER):
            assert best[kind].at_1 > found.recall[name][kind].at_1


def test_misses_are_those_that_are_not_first_worst_first(found: PhotoEvaluation) -> None:
    ranks = [miss.rank for miss in found.misses]
    assert ranks == sorted(ranks, reverse=True)
    assert min(ranks, default=2) >= 2
    shares = sum(
        round((1 - recall.at_1) * found.queries[kind])
        for kind, recall in found.recall[LITE].items()
    )
    assert len(found.misses) == shares
    for miss in found.misses:
        assert miss.expected.parent == miss.query.parent
        assert miss.found[0].parent != miss.query.parent


def test_the_sheet_of_misses_needs_nothing_outside_of_it(found: PhotoEvaluation) -> None:
    page = contact_sheet("<model>", found.misses[:2])
    assert "&lt;model&gt;: " in page
    assert "http" not in page
    assert page.count("data:image/jpeg;base64,") == sum(
        2 + len(miss.found) for miss in found.misses[:2]
    )
    assert "none" in contact_sheet("x", [])


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Folders of a shop: 6 products of 2 photos each, of which one in three, by name, is product-6."""
    rng = np.random.default_rng(5)
    for number in range(2, 8):
        home = tmp_path / "shop" / f"product-{number}"
        home.mkdir(parents=True)
        base = rng.integers(0, 256, (8, 8, 3), np.uint8)
        for photo in range(2):
            noisy = np.clip(base + rng.integers(-9, 9, base.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).resize((96, 80)).save(home / f"{photo}.png")
    return tmp_path / "shop"


def test_a_head_is_fitted_on_a_shops_own_products_and_measured_on_others(own: Path) -> None:
    products = read_products([own])
    start = read_checkpoint(shipped_checkpoint(LITE))
    stages = set()
    config = FitConfig("shop", views=1, one_in=3, head=HeadConfig(dimensions=256, steps=3))
    made, report = fit(start, products, config, lambda stage, *_: stages.add(stage))
    assert (made.model_id, made.dimensions, made.zooms) == ("shop", 256, True)
    assert (report.fitted_products, report.held_out_products) == (5, 1)
    assert report.fitted_photos == 2 * report.fitted_products
    assert {"views embedded", "steps fitted"} <= stages
    assert report.before is not None
    assert report.after is not None
    assert report.after.queries == report.before.queries
    assert report.after.queries[Search.OTHER_VIEW] == 2 * report.held_out_products
    assert not torch.equal(
        made.network.state_dict()["head.weight"], start.network.state_dict()["head.weight"]
    )


def test_a_seed_decides_a_fit(own: Path) -> None:
    products = read_products([own])
    start = read_checkpoint(shipped_checkpoint(LITE))
    config = FitConfig("shop", views=1, one_in=0, head=SMALL)
    first, second = (fit(start, products, config, quietly)[0] for _ in "ab")
    weights = first.network.state_dict()["head.weight"]
    assert torch.equal(weights, second.network.state_dict()["head.weight"])
    assert weights.shape[0] == 16


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_a_head_fitted_on_a_backbone_alone_is_a_model_with_its_input(
    own: Path, tmp_path: Path, variant: LiteVariant
) -> None:
    config = FitConfig("shop", views=0, one_in=0, head=SMALL)
    backbone = LiteBackbone(variant).eval()
    made, report = fit(backbone, read_products([own]), config, quietly)
    assert (made.side, report.before) == (variant.side, None)
    path = tmp_path / "shop.pt"
    save_checkpoint(made, path)
    model = load_embedder(str(path))
    assert (model.model_id, model.dimensions) == ("shop", 16)
    photo = Image.new("RGB", (40, 30), (200, 40, 40))
    expected = embedder_of(made).embed([photo])
    assert np.allclose(model.embed([photo]), expected, atol=0.02)  # weights are kept as float16


def test_a_model_without_a_head_to_fit_is_refused(own: Path) -> None:
    demo = Checkpoint("demo", 8, 32, PhotoNetwork(8))
    with pytest.raises(ModelError, match="demo has no head of its own to fit; expected efficient"):
        fit(demo, read_products([own]), FitConfig("shop"), quietly)


def test_a_fit_needs_two_products(own: Path) -> None:
    start = read_checkpoint(shipped_checkpoint(LITE))
    with pytest.raises(PhotoFolderError, match="1 products to fit on, of 1: expected two or more"):
        fit(start, read_products([own])[:1], FitConfig("shop", one_in=0), quietly)


def test_the_command_fits_and_the_result_is_a_model(own: Path, tmp_path: Path) -> None:
    output = tmp_path / "own.pt"
    command = ["model", "fit", "--photos", str(own), "--output", str(output), "--model-id", "shop"]
    ran = CliRunner().invoke(app, [*command, "--views", "0", "--held-out", "3", "--json"])
    assert ran.exit_code == 0, ran.output
    document = json.loads(ran.stdout)
    assert document["before"]["queries"] == document["after"]["queries"]
    assert load_embedder(str(output)).model_id == "shop"


def test_with_one_photo_per_product_the_command_says_what_cannot_be_told(
    own: Path, tmp_path: Path
) -> None:
    for path in own.glob("*/1.png"):
        path.unlink()
    sheet = tmp_path / "misses.html"
    command = ["model", "eval", LITE, "--photos", str(own), "--copies", "3"]
    ran = CliRunner().invoke(app, [*command, "--sheet", str(sheet)])
    assert ran.exit_code == 0, ran.output
    assert "whether other views are found cannot be told" in ran.stdout
    assert "gentle copy (3)" in ran.stdout
    assert "other view" not in ran.stdout.splitlines()[-1]
    assert sheet.read_text().startswith("<!doctype html>")


def test_a_sheet_without_photos_is_refused(tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["model", "eval", "--sheet", str(tmp_path / "a.html")])
    assert ran.exit_code != 0
    assert not (tmp_path / "a.html").exists()
