"""``shashin model``: training and evaluating an embedding model on the rendered catalogue."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, help="Train and evaluate embedding models.")


@app.command(epilog="Example:  shashin model train")
def train() -> None:
    """Train."""


@app.command(name="eval", epilog="Example:  shashin model eval")
def evaluate() -> None:
    """Evaluate."""
