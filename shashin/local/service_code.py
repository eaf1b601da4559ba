"""Where child processes find the package ``services``, and this same ``shashin``.

In a checkout both are side by side. An installed wheel bundles the services inside ``shashin``,
since a top-level package called ``services`` could belong to another project.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from shashin.errors import UserError

_SHASHIN = Path(__file__).parents[1]
_SERVICES = "services"


def services_folder() -> Path:
    """Return the folder that contains the package ``services``.

    Raises:
        UserError: if this installation has none.
    """
    # The bundle first: a package services next to an installed shashin is another project's.
    for folder in (_SHASHIN / "bundled", _SHASHIN.parent):
        if (folder / _SERVICES / "__init__.py").is_file():
            return folder
    raise UserError(
        f"this installation of shashin in {_SHASHIN} has no services: install the wheel, or run "
        "from a checkout"
    )


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which a Python process imports ``services`` and this ``shashin``.

    Raises:
        UserError: if this installation has no services.
    """
    own = [str(services_folder()), str(_SHASHIN.parent)]
    inherited = environment.get("PYTHONPATH")
    path = dict.fromkeys([*own, *(inherited.split(os.pathsep) if inherited else ())])
    return {**environment, "PYTHONPATH": os.pathsep.join(path)}
