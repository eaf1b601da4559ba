"""The model space: a model and its vector length. Vectors of different spaces never mix."""

from __future__ import annotations

import re
from dataclasses import dataclass

from shashin.errors import UserError

MAX_MODEL_ID = 100
"""Characters of a model's id."""

_MODEL_ID = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._:-]{{0,{MAX_MODEL_ID - 1}}}")


def check_model_id(model_id: str) -> None:
    """Check that an id can be a part of object keys and paths.

    Raises:
        UserError: when it has other characters, or is empty or too long.
    """
    if _MODEL_ID.fullmatch(model_id) is None:
        raise UserError(
            f"model id {model_id!r} cannot be used: expected 1 to 100 letters, digits, dots, "
            "underscores, colons or dashes, the first one a letter or digit"
        )


@dataclass(frozen=True)
class ModelSpace:
    """The vector space of one model; every shard and query belongs to exactly one."""

    model_id: str
    dimensions: int
    """Length of every vector."""

    def __str__(self) -> str:
        return f"{self.model_id} ({self.dimensions} dimensions)"
