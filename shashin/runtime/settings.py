"""Settings: one class per service, read from environment variables prefixed with ``SHASHIN_``."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shashin.errors import SettingsError, UserError
from shashin.model_space import ModelSpace, check_model_id
from shashin.redaction import without_user_names


class TraceSettings(BaseSettings):
    """Where spans are sent, by a service or by a command that publishes."""

    model_config = SettingsConfigDict(env_prefix="SHASHIN_", extra="ignore", frozen=True)

    trace_endpoint: str = Field(
        "",
        description="Collector that spans are sent to with OTLP by gRPC, such as "
        "`http://otel-collector:4317`; empty turns traces off. Headers and certificates are those of "
        "OpenTelemetry's own variables, `OTEL_EXPORTER_OTLP_*`.",
    )
    trace_share: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of the traces that begin in this process which is kept. A trace that began "
        "elsewhere is kept if it was there.",
    )
    traces_per_second: float = Field(
        5.0,
        gt=0,
        description="At most so many traces that begin in this process are kept a second, and those of ten "
        "seconds at once after a pause: a bound on what traces cost, however busy the system is.",
    )

    @field_validator("trace_endpoint")
    @classmethod
    def _trace_endpoint_is_an_address(cls, value: str) -> str:
        return validated_by(check_trace_endpoint, value)


class ServiceSettings(TraceSettings):
    """Settings of every service."""

    kafka: str = Field(
        "127.0.0.1:9092", description="Kafka's bootstrap servers, HOST:PORT, comma-separated."
    )
    http_host: str = Field(
        "127.0.0.1", description="Address to serve /metrics and the health probes on."
    )
    http_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port to serve /metrics and the health probes on; 0 picks a free one.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Minimum severity of log lines."
    )
    log_format: Literal["json", "console"] = Field(
        "json", description="json for machines, console for people."
    )
    stall_seconds: float = Field(
        60.0, gt=0, description="Seconds that a loop may make no progress before /livez fails."
    )
    start_seconds: float = Field(
        600.0,
        gt=0,
        description="Seconds that startup may make no progress before /livez fails; it may load a model.",
    )
    drain_seconds: float = Field(
        10.0, ge=0, description="Seconds that work in progress may take after SIGTERM."
    )


class ModelSettings(ServiceSettings):
    """The model of a service that works with a single one."""

    model_id: str = Field(
        "demo-v1",
        description="Model whose vectors this service handles; those of other models are ignored.",
    )

    @field_validator("model_id")
    @classmethod
    def _model_id_can_be_a_path(cls, value: str) -> str:
        return validated_by(check_model_id, value)


class ModelSpaceSettings(ModelSettings):
    """The model space of a service that handles vectors."""

    dimensions: int = Field(128, ge=1, le=8192, description="Length of that model's vectors.")

    @property
    def space(self) -> ModelSpace:
        """The model and the length of its vectors."""
        return ModelSpace(self.model_id, self.dimensions)


def check_trace_endpoint(value: str) -> None:
    """Check the address of a collector.

    Raises:
        UserError: if it is neither empty nor http://HOST:PORT or https://HOST:PORT.
    """
    if value and not re.fullmatch(r"https?://[^\s/?#@]+:[0-9]{1,5}/?", value):
        raise UserError("expected http://HOST:PORT or https://HOST:PORT of a collector")


def validated_by(check: Callable[[str], object], value: str) -> str:
    """Return a setting's value if ``check`` accepts it, for use in a field's validator.

    Raises:
        ValueError: with the message of the UserError that ``check`` raised.
    """
    try:
        check(value)
    except UserError as error:
        raise ValueError(error.message) from None
    return value


def parse_folders(text: str) -> tuple[Path, ...]:
    """Return the folders in a setting: a JSON list of absolute paths, or one absolute path.

    Raises:
        UserError: if it is neither, or could be one path as well as several.
    """
    if not text:
        return ()
    folders: Any = [text]
    if text.lstrip().startswith("["):
        try:
            folders = json.loads(text)
        except ValueError as error:
            raise UserError(f"it is not a JSON list of folders: {error}") from None
        if not all(isinstance(folder, str) for folder in folders):
            raise UserError('expected a JSON list of folders, such as ["/srv/photos", "/mnt/more"]')
    elif os.pathsep in text or re.search(r",\s*/", text):
        raise UserError(
            "one path or several? Expected one absolute path, or a JSON list such as "
            '["/srv/photos", "/mnt/more"], which a path with a colon or a comma needs as well'
        )
    for folder in folders:
        if not Path(folder).is_absolute():
            raise UserError(f"{folder!r} is not an absolute path")
    return tuple(map(Path, folders))


SettingsT = TypeVar("SettingsT", bound=BaseSettings)


def load_settings(settings_class: type[SettingsT]) -> SettingsT:
    """Read the settings from the environment.

    Raises:
        SettingsError: naming every missing variable, and every invalid one with its value, without
            the user names of URLs, and what was expected.
    """
    try:
        return settings_class()
    except ValidationError as error:
        prefix = settings_class.model_config.get("env_prefix", "")
        problems = []
        for problem in error.errors():
            name = (prefix + "_".join(str(part) for part in problem["loc"])).upper()
            if problem["type"] == "missing":
                problems.append(f"{name} is not set, and has no default")
            else:
                # Messages of our own validators keep their case, as they may quote the value.
                own = problem.get("ctx", {}).get("error")
                reason = problem["msg"].lower() if own is None else str(own)
                if not problem["loc"]:
                    # Of several settings together: their values may have secrets.
                    problems.append(reason)
                    continue
                problems.append(without_user_names(f"{name}={problem['input']!r}: {reason}"))
        raise SettingsError("invalid settings: " + "; ".join(problems)) from None
