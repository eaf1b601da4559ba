"""The options of every command that calls a router: certificates and API key.

A decorator adds them, so that no command passes them on: the clients that it makes find what was given.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from shashin.errors import UserError
from shashin.rpc.router_access import RouterAccess, using
from shashin.runtime.settings import load_settings


def _option(name: str, variable: str, text: str) -> Any:
    return Annotated[Path | None, typer.Option(name, envvar=variable, help=text, dir_okay=False)]


_OPTIONS = {
    "router_ca_file": _option(
        "--router-ca",
        "SHASHIN_ROUTER_CA_FILE",
        "Authorities of routers at grpcs://, in PEM; those of the system by default.",
    ),
    "router_certificate_file": _option(
        "--router-certificate",
        "SHASHIN_ROUTER_CERTIFICATE_FILE",
        "Own certificate chain in PEM, for routers that ask for one.",
    ),
    "router_key_file": _option(
        "--router-key", "SHASHIN_ROUTER_KEY_FILE", "Private key of that certificate, in PEM."
    ),
    "api_key_file": _option(
        "--api-key-file",
        "SHASHIN_API_KEY_FILE",
        "File with the API key; SHASHIN_API_KEY has the key itself.",
    ),
}


def calls_router(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with options for what its clients of routers prove themselves with."""

    @functools.wraps(command)
    def with_access(*arguments: Any, **values: Any) -> None:
        given = {name: values.pop(name) for name in _OPTIONS}
        with using(_access(given)):
            command(*arguments, **values)

    # Typer does not evaluate the annotations of a signature that is given.
    own = inspect.signature(command, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in _OPTIONS.items()
    ]
    signature = own.replace(parameters=[*own.parameters.values(), *added])
    with_access.__signature__ = signature  # type: ignore[attr-defined]
    with_access.__annotations__ = {**command.__annotations__, **_OPTIONS}
    return with_access


def _access(given: dict[str, Path | None]) -> RouterAccess:
    """Return what the options say, and the environment where they do not.

    Raises:
        UserError: if it does not fit together.
    """
    access = load_settings(RouterAccess)
    options: dict[str, Path | None] = {
        name: value for name, value in given.items() if value is not None
    }
    if "api_key_file" in options:
        # Rather than the key of the environment.
        options["api_key"] = None
    try:
        return RouterAccess.model_validate({**access.model_dump(), **options})
    except ValueError:
        raise UserError("--router-certificate and --router-key belong together") from None
