"""Asks before something is done that cannot be undone."""

from __future__ import annotations

import sys

import typer

from shashin.terminal.console import echo_stderr


def confirm(what: str, *, yes: bool) -> None:
    """Ask for confirmation, but only at a terminal.

    Raises:
        typer.Exit: with 1, if the answer is no.
    """
    if yes or not sys.stdin.isatty():
        return
    if not typer.confirm(f"{what}?", err=True):
        echo_stderr("nothing changed")
        raise typer.Exit(1)
