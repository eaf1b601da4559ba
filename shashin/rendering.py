"""Whether product photos can be rendered here: no part of a production install.

``shashin_catalogue`` renders them for the demo, the bench and the training of models. It is a
package of its own, in the folder ``catalogue/`` of the repository, and not in the wheel.
"""

from __future__ import annotations

from importlib import import_module

from shashin.errors import UserError

_PACKAGE = "shashin_catalogue"


def require_rendering(*, instead: str = "") -> None:
    """Refuse work that renders photos if nothing here can; ``instead`` says what works without.

    Raises:
        UserError: saying what to install.
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
