"""Checks whether product photos can be rendered; production installs do not need it.

``shashin_catalogue`` renders them for the demo, the bench and model training. It is a separate
package in the repository's ``catalogue/`` folder, not part of the wheel.
"""

from __future__ import annotations

from importlib import import_module

from shashin.errors import UserError

_PACKAGE = "shashin_catalogue"


def require_rendering(*, instead: str = "") -> None:
    """Fail if photos cannot be rendered; ``instead`` is the alternative to suggest.

    Raises:
        UserError: naming the package to install.
    """
    try:
        import_module(_PACKAGE)
    except ModuleNotFoundError as error:
        if error.name != _PACKAGE:
            raise
        raise UserError(
            f"the package {_PACKAGE}, which renders product photos, is not installed: run "
            f"`pip install ./catalogue` in a checkout of shashin's repository{instead}"
        ) from None
