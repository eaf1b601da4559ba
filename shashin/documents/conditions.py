"""Conditions: what is true of an object, as Kubernetes has them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from shashin.documents.parts import Part


class Condition(Part):
    """One thing that is true of an object, or not."""

    type: Annotated[str, StringConstraints(pattern="^[A-Z][A-Za-z0-9]*$", max_length=63)]
    """What the condition is about, such as Ready."""
    status: Literal["True", "False", "Unknown"]
    observed_generation: Annotated[int, Field(ge=0)] = 0
    """The object's generation that the condition was found for."""
    last_transition_time: datetime
    """When the status changed last."""
    reason: Annotated[str, StringConstraints(pattern="^[A-Z][A-Za-z0-9]*$", max_length=63)]
    """A word for programs that says why."""
    message: Annotated[str, StringConstraints(max_length=4096)] = ""
    """Why, and what to do, for people."""
