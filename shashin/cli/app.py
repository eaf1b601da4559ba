"""The command ``shashin``: its groups, and how errors are reported."""

from __future__ import annotations

import errno
import logging
from typing import Any

import typer
from typer.core import TyperGroup

from shashin.cli import (
    cache,
    coverage,
    index_copies,
    index_upkeep,
    indexes,
    kafka,
    keys,
    model,
    publish,
    snapshots,
    thumbnails,
    up,
)
from shashin.cli.builds import command as builds
from shashin.cli.demo import command as demo
from shashin.cli.dlq import command as dlq
from shashin.cli.load import command as load
from shashin.cli.search import command as search
from shashin.errors import ShashinError, UserError
from shashin.terminal.console import echo_error

_FULL = {errno.ENOSPC, errno.EDQUOT}

USER_ERROR, FAILURE = 2, 1
"""Exit codes: invalid usage or input; any other known failure."""


class ErrorsInOneLine(TyperGroup):
    """A group of commands whose errors are one red line on stderr, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; exits with 2 for a user error and 1 for any other known error."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            echo_error(error.message)
            raise typer.Exit(USER_ERROR) from None
        except ShashinError as error:
            echo_error(error.message)
            raise typer.Exit(FAILURE) from None
        except UnicodeEncodeError as error:
            # An argument that is not UTF-8, in a message or an address.
            echo_error(f"{error.object!r} is not UTF-8 text")
            raise typer.Exit(USER_ERROR) from None
        except OSError as error:
            # A write to a full disk does not name its file.
            if error.errno == errno.EPIPE or (error.filename is None and error.errno not in _FULL):
                raise
            where = f"{error.filename}: " if error.filename is not None else ""
            echo_error(f"{where}{(error.strerror or 'cannot be accessed').lower()}")
            raise typer.Exit(FAILURE) from None


app = typer.Typer(
    name="shashin",
    cls=ErrorsInOneLine,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Search a marketplace by photo: listings are searchable within a second, and sold ones "
    "disappear just as fast.",
    epilog="Start with:  shashin demo   or   shashin up",
)

up.register(app)
publish.register(app)
search.register(app)
coverage.register(app)
demo.register(app)
load.register(app)
index_copies.register(indexes.app)
index_upkeep.register(indexes.app)
snapshots.register(indexes.app)
app.add_typer(builds.app, name="builds")
app.add_typer(cache.app, name="cache")
app.add_typer(dlq.app, name="dlq")
app.add_typer(indexes.app, name="indexes")
app.add_typer(kafka.app, name="kafka")
app.add_typer(keys.app, name="keys")
app.add_typer(model.app, name="model")
app.add_typer(thumbnails.app, name="thumbnails")


def main() -> None:
    """Run the command."""
    # What client libraries log about a failed call is in the command's own error already.
    logging.getLogger().addHandler(logging.NullHandler())
    app(prog_name="shashin")
