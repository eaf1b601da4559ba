"""``shashin model``: train, evaluate and publish embedding models, and choose the one that searches use."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shashin.cli.active_model import activate, ls
from shashin.cli.model_photos import (
    NewModelIdOption,
    OutputOption,
    PhotoSearches,
    evaluate_with_photos,
    fit,
)
from shashin.cli.model_publishing import publish
from shashin.cli.options import JsonOption, QueriesOption, WorkOption
from shashin.errors import UserError
from shashin.model_space import check_model_id
from shashin.terminal.console import Stages, command, echo, echo_json, echo_table

if TYPE_CHECKING:
    from shashin.model.evaluation import Evaluation, Recall

app = typer.Typer(
    no_args_is_help=True,
    help="Train, evaluate and publish embedding models, and choose the one that searches use.",
)
app.command(epilog="Example:  shashin model ls")(ls)
app.command(epilog="Example:  shashin model activate my-model")(activate)
app.command(epilog="Example:  shashin model publish my-model.pt --repository gs://bucket/shashin")(
    publish
)
app.command(epilog="Example:  shashin model fit --photos photos --output my-model.pt")(fit)

_WORK = Path(".shashin/model")


@app.command(epilog="Example:  shashin model train --output my-model.pt --epochs 4")
def train(
    *,
    output: OutputOption = Path("model.pt"),
    model_id: NewModelIdOption = "my-model",
    products: Annotated[int, typer.Option(help="Number of products to train on.", min=2)] = 8000,
    photos: Annotated[int, typer.Option(help="Photos per product.", min=2)] = 4,
    epochs: Annotated[int, typer.Option(help="Training epochs.", min=1)] = 12,
    seed: Annotated[
        int, typer.Option(help="Seed for the initial weights and the batch order.")
    ] = 0,
    work: WorkOption = _WORK,
) -> None:
    """Train a model on rendered products (about 25 minutes on two cores)."""
    from shashin.model.checkpoint import save_checkpoint
    from shashin.model.training import TrainingConfig, TrainingProgress
    from shashin.model.training import train as run_training

    check_model_id(model_id)
    config = TrainingConfig(
        model_id=model_id,
        products=products,
        photos=photos,
        epochs=epochs,
        seed=seed,
        batch_products=min(TrainingConfig.batch_products, products),
    )
    started = time.monotonic()
    loss: float | None = None
    with Stages() as stages:

        def show(progress: TrainingProgress) -> None:
            nonlocal loss
            loss = progress.loss
            stages.set(progress.stage, progress.done, progress.total)

        checkpoint = run_training(config, work, show)
    save_checkpoint(checkpoint, output)
    shown = "" if loss is None else f", loss {loss:.3f}"
    echo(
        f"{output}: {output.stat().st_size / 1e6:.1f} MB, trained in "
        f"{time.monotonic() - started:.0f} s{shown}",
        style="green",
    )
    echo(f"evaluate:  {command('model', 'eval', output)}")
    echo(f"use:       {command('up', '--model', output)}")


@app.command(name="eval", epilog="Example:  shashin model eval demo-v1 --json")
def evaluate(
    *,
    model: Annotated[
        str,
        typer.Argument(help="demo-v1, efficientnet-lite0, torchvision:NAME, or a checkpoint."),
    ] = "demo-v1",
    photos: Annotated[
        list[Path] | None,
        typer.Option(
            help="Measure with real photos: a folder of products, each a folder with its photos, "
            "of which query-* are searched with. Can be repeated.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    distractors: Annotated[
        list[Path] | None,
        typer.Option(
            help="With --photos: a folder of more products, which are searched but not searched for. "
            "Can be repeated.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    copies: Annotated[
        int, typer.Option(help="With --photos: photos whose copies are searched for.", min=1)
    ] = 300,
    sheet: Annotated[
        Path | None,
        typer.Option(help="With --photos: write a page of the worst misses.", dir_okay=False),
    ] = None,
    queries: QueriesOption = 1000,
    products: Annotated[
        int, typer.Option(help="Products in the gallery, with 3 photos each.", min=2)
    ] = 3334,
    work: WorkOption = _WORK,
    as_json: JsonOption = False,
) -> None:
    """Measure recall on held-out rendered products, or on your own photos, beside simpler methods."""
    if photos:
        wanted = PhotoSearches(photos, distractors or [], copies)
        evaluate_with_photos(model, wanted, sheet=sheet, as_json=as_json)
        return
    if sheet is not None or distractors:
        raise UserError(
            "--sheet and --distractors are about real photos; expected --photos as well"
        )
    from shashin.model.evaluation import EvaluationConfig
    from shashin.model.evaluation import evaluate as run_evaluation
    from shashin.model.loading import load_embedder

    embedder = load_embedder(model, threads=2)
    config = EvaluationConfig(products=products, queries=queries)
    with Stages() as stages:
        found = run_evaluation(embedder, work, stages.set, config)
    if as_json:
        echo_json(found.document())
    else:
        _print(found)


def _print(found: Evaluation) -> None:
    echo(
        f"{found.queries:,} unseen photos among {found.gallery_photos:,} photos of "
        f"{found.products:,} held-out products"
    )

    def row(name: str, recall: Recall) -> tuple[str, ...]:
        shares = (recall.photos_at_1, recall.photos_at_10, recall.listings_at_10)
        return (name, *(f"{share:.3f}" for share in shares))

    echo_table(
        ["", ">recall@1", ">recall@10", ">recall@10 by product"],
        [row(found.model_id, found.model), row("colour histogram", found.histogram)],
    )
