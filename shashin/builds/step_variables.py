"""The environment variables that describe a build to its steps.

They are the same for a built-in step as for a command of the user's, on one machine as on Kubernetes.
"""

from __future__ import annotations

from typing import Final

BUILD: Final = "SHASHIN_BUILD"
"""Path of the build's document, as JSON."""

WORK: Final = "SHASHIN_BUILD_WORK"
"""Folder that all steps of the build share, and that a retry keeps."""

OUT: Final = "SHASHIN_STEP_OUT"
"""The step's own folder for its output, empty at its start. Beside it are those of the steps before
it, each under its step's name."""

REPOSITORY: Final = "SHASHIN_REPOSITORY"
"""URI of the model repository."""

PROGRESS: Final = "SHASHIN_STEP_PROGRESS"
"""File for the step's progress, optional: ``{"done": 10, "total": 200, "unit": "rows"}``."""

REASON: Final = "SHASHIN_STEP_REASON"
"""File for the reason of a failure, optional: text."""

RESULT: Final = "SHASHIN_STEP_RESULT"
"""File for what a step that succeeded has to say, only on Kubernetes and optional: JSON such as
``{"shards": ["demo-v1.daily.b77"], "progress": {"done": 200, "unit": "rows"}}``, at most 4096 bytes."""
