"""Settings that the user gives to ``shashin up`` in its environment. Pure."""

from __future__ import annotations

from collections.abc import Mapping

PHOTO_ROOTS = "SHASHIN_PHOTO_ROOTS"
"""Added to the folder of published photos."""

THUMBNAILS = "SHASHIN_THUMBNAILS"
"""Used instead of the folder of thumbnails."""

OPTIONS = frozenset(
    {
        "SHASHIN_KAFKA",
        "SHASHIN_REPOSITORY",
        "SHASHIN_MODEL",
        "SHASHIN_BUCKET_SECONDS",
        "SHASHIN_GRACE_SECONDS",
    }
)
"""Also options of the command, which reads them from its environment."""

DECIDED = frozenset(
    {
        "SHASHIN_HTTP_HOST",
        "SHASHIN_HTTP_PORT",
        "SHASHIN_GRPC_HOST",
        "SHASHIN_GRPC_PORT",
        "SHASHIN_REST_HOST",
        "SHASHIN_REST_PORT",
        "SHASHIN_DISCOVERY",
        "SHASHIN_WORK_FOLDER",
        "SHASHIN_HIDDEN_FOLDER",
        "SHASHIN_TIER",
        "SHASHIN_MODEL_ID",
        "SHASHIN_DIMENSIONS",
        "SHASHIN_PHOTOS",
    }
)
"""They differ between processes or follow from other options, so one value cannot be given."""

_OF_THE_COMMAND = frozenset({"SHASHIN_STATE", "SHASHIN_ROUTER", "SHASHIN_CACHE"})


def settings_passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that services get from the user, by name, sorted."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if name.startswith("SHASHIN_") and name not in OPTIONS | DECIDED | _OF_THE_COMMAND
    }


def settings_not_used(environment: Mapping[str, str]) -> list[str]:
    """Return the names of the user's settings that are decided here instead, sorted."""
    return sorted(DECIDED & environment.keys())
