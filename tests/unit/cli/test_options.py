"""Options of commands: one that several commands take is declared once, for all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, get_type_hints

import pytest
from typer import Typer
from typer.models import OptionInfo

from shashin.cli import options
from shashin.cli.app import app

SHARED_BY_GROUPS = [
    "as_json",
    "bucket_seconds",
    "builds",
    "kafka",
    "queries",
    "repository",
    "router",
    "state",
]
"""Parameters that commands of several groups take."""


def commands(of: Typer, group: str = "") -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield each command's name, with that of its group, and its function."""
    for command in of.registered_commands:
        assert command.callback is not None
        yield f"{group} {command.name or command.callback.__name__}".strip(), command.callback
    for added in of.registered_groups:
        assert added.typer_instance is not None
        yield from commands(added.typer_instance, added.name or "")


def declared() -> Iterator[tuple[str, str, OptionInfo]]:
    """Yield command, parameter and declaration of every option."""
    for name, function in commands(app):
        for parameter, hint in get_type_hints(function, include_extras=True).items():
            for metadata in getattr(hint, "__metadata__", ()):
                if isinstance(metadata, OptionInfo):
                    yield name, parameter, metadata


def test_no_option_is_declared_twice() -> None:
    found = defaultdict(set)
    for _, parameter, option in declared():
        found[parameter, option.help].add(id(option))
    assert found
    assert [key for key, declarations in found.items() if len(declarations) > 1] == []


@pytest.mark.parametrize("parameter", SHARED_BY_GROUPS)
def test_an_option_that_commands_of_several_groups_take_is_the_shared_one(parameter: str) -> None:
    shared = {
        id(metadata)
        for hint in vars(options).values()
        for metadata in getattr(hint, "__metadata__", ())
    }
    takers = [(name, id(option)) for name, taken, option in declared() if taken == parameter]
    assert len({name for name, _ in takers}) > 1
    assert {declaration for _, declaration in takers} <= shared
