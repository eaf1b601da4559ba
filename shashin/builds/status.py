"""The status of a build and how it changes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from shashin.builds.step_reports import Progress
from shashin.errors import UnknownFormat, UnreadableBuild

FORMAT = "shashin.build-status/1"

Phase = Literal["Pending", "Running", "Succeeded", "Failed", "Cancelled"]

ENDED: tuple[Phase, ...] = ("Succeeded", "Failed", "Cancelled")

RUNNER_DIED = "its runner ended before the build did"

_CONFIG = ConfigDict(
    extra="forbid",
    alias_generator=to_camel,
    serialize_by_alias=True,
)


@dataclass(frozen=True, order=True)
class OutputFile:
    """A file in a step's output folder."""

    __pydantic_config__ = _CONFIG

    path: str
    """Relative to the step's output folder, with slashes."""
    size: int
    """Bytes."""
    sha256: str
    """Hexadecimal."""


@dataclass(frozen=True)
class StepStatus:
    """How far one step of a build is."""

    __pydantic_config__ = _CONFIG

    name: str
    fingerprint: str
    """Hash of all that the step's output depends on (``shashin.builds.fingerprints``)."""
    phase: Phase = "Pending"
    attempt: int = 0
    """The build's attempt in which the step last ran; 0: never."""
    started: datetime | None = None
    finished: datetime | None = None
    seconds: float | None = None
    """From start to end, by a clock that nobody sets."""
    exit_code: int | None = None
    """128 and the signal's number if a signal ended it, as a shell has it."""
    reason: str = ""
    """Why it failed, or why it runs again though it had succeeded."""
    outputs: tuple[OutputFile, ...] = ()
    progress: Progress | None = None

    @property
    def per_second(self) -> float | None:
        """What the step counts, per second; None if it counts nothing."""
        if self.progress is None or not self.seconds:
            return None
        return self.progress.done / self.seconds


@dataclass(frozen=True, kw_only=True)
class BuildStatus:
    """How far a build is."""

    __pydantic_config__ = _CONFIG

    phase: Phase
    reason: str = ""
    """Why it failed or was cancelled."""
    attempts: int = 0
    created: datetime
    started: datetime | None = None
    """Start of the last attempt."""
    finished: datetime | None = None
    repository: str
    """URI of the model repository that it reads and publishes to."""
    command_folder: str
    """Working directory of the user's own commands."""
    run: str = ""
    """Id of the last attempt, in the environment of each of its processes."""
    pid: int | None = None
    """Process that runs, or ran, the last attempt."""
    steps: tuple[StepStatus, ...]

    @classmethod
    def of_a_new_build(
        cls,
        steps: Sequence[tuple[str, str]],
        *,
        repository: str,
        command_folder: str,
        now: datetime,
    ) -> BuildStatus:
        """Return the status of a build that was never run; ``steps`` as in ``attempt_begun``."""
        pending = tuple(StepStatus(name, fingerprint) for name, fingerprint in steps)
        return cls(
            phase="Pending",
            created=now,
            repository=repository,
            command_folder=command_folder,
            steps=pending,
        )

    @property
    def ended(self) -> bool:
        """Whether the last attempt is over."""
        return self.phase in ENDED

    @property
    def running_step(self) -> StepStatus | None:
        """The step that is running."""
        return next((step for step in self.steps if step.phase == "Running"), None)

    @property
    def next_step(self) -> StepStatus | None:
        """The first step that has not succeeded."""
        return next((step for step in self.steps if step.phase != "Succeeded"), None)

    def kept(self, step: StepStatus) -> bool:
        """Return whether a step's output is that of an earlier attempt."""
        return step.phase == "Succeeded" and step.attempt < self.attempts

    # --- changes --------------------------------------------------------------------------------

    def attempt_begun(
        self,
        steps: Sequence[tuple[str, str]],
        *,
        repository: str,
        command_folder: str,
        run: str,
        pid: int,
        now: datetime,
    ) -> BuildStatus:
        """Begin another attempt at ``steps``, each a name and a fingerprint.

        The first steps stay succeeded as long as name and fingerprint are those that succeeded
        before; all others start anew.
        """
        begun: list[StepStatus] = []
        for name, fingerprint in steps:
            before = self.steps[len(begun)] if len(begun) < len(self.steps) else None
            same = before is not None and (before.name, before.fingerprint) == (name, fingerprint)
            unbroken = all(step.phase == "Succeeded" for step in begun)
            if before is not None and same and unbroken and before.phase == "Succeeded":
                begun.append(before)
            else:
                begun.append(StepStatus(name, fingerprint))
        return replace(
            self,
            phase="Running",
            reason="",
            repository=repository,
            command_folder=command_folder,
            attempts=self.attempts + 1,
            started=now,
            finished=None,
            run=run,
            pid=pid,
            steps=tuple(begun),
        )

    def invalidated(self, name: str, reason: str) -> BuildStatus:
        """Return this with a step and all that follow it to be run again, and why."""
        assert self.phase == "Running"
        names = [step.name for step in self.steps]
        first = names.index(name)
        again = [StepStatus(step.name, step.fingerprint) for step in self.steps[first:]]
        again[0] = replace(again[0], reason=reason)
        return replace(self, steps=(*self.steps[:first], *again))

    def step_begun(self, name: str, now: datetime) -> BuildStatus:
        """Return this with the next step running."""
        assert self.phase == "Running"
        assert self.running_step is None
        assert self.next_step is not None
        assert self.next_step.name == name
        step = StepStatus(
            name, self.next_step.fingerprint, "Running", attempt=self.attempts, started=now
        )
        return self._with(step)

    def step_ended(
        self,
        phase: Phase,
        now: datetime,
        *,
        seconds: float,
        exit_code: int | None = None,
        reason: str = "",
        outputs: tuple[OutputFile, ...] = (),
        progress: Progress | None = None,
    ) -> BuildStatus:
        """Return this with the running step ended."""
        assert phase in ENDED
        assert self.running_step is not None
        step = replace(
            self.running_step,
            phase=phase,
            finished=now,
            seconds=round(seconds, 3),
            exit_code=exit_code,
            reason=reason,
            outputs=outputs,
            progress=progress,
        )
        return self._with(step)

    def with_progress(self, progress: Progress | None, seconds: float) -> BuildStatus:
        """Return this with what the running step has reported so far."""
        step = self.running_step
        if step is None:
            return self
        return self._with(replace(step, progress=progress, seconds=round(seconds, 3)))

    def ended_as(self, phase: Phase, now: datetime, reason: str = "") -> BuildStatus:
        """Return this with the attempt ended, and the running step with it."""
        assert phase in ENDED
        assert phase != "Succeeded" or self.next_step is None
        step = self.running_step
        ended = self
        if step is not None:
            ended = self._with(replace(step, phase=phase, finished=now, reason=reason))
        return replace(ended, phase=phase, finished=now, reason=reason)

    def without_a_runner(self) -> BuildStatus:
        """Return how this reads once no process runs the build: one that never ended has failed."""
        if self.ended or self.attempts == 0:
            return self
        step = self.running_step
        failed = self
        if step is not None:
            failed = self._with(replace(step, phase="Failed", reason=RUNNER_DIED))
        return replace(failed, phase="Failed", reason=RUNNER_DIED)

    def _with(self, changed: StepStatus) -> BuildStatus:
        steps = tuple(changed if step.name == changed.name else step for step in self.steps)
        return replace(self, steps=steps)

    # --- JSON -----------------------------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        """Return this for JSON."""
        fields: dict[str, Any] = _STATUS.dump_python(self, mode="json", exclude_none=True)
        return {"format": FORMAT, **fields}

    @classmethod
    def from_document(cls, document: Any, *, origin: str) -> BuildStatus:
        """Read what ``document()`` returned; ``origin`` names it in errors.

        Raises:
            UnknownFormat: when another version wrote it.
            UnreadableBuild: when it is something else.
        """
        if not isinstance(document, dict) or "format" not in document:
            raise UnreadableBuild(f"{origin} is not the status of a build")
        fields = dict(document)
        found = fields.pop("format")
        if found != FORMAT:
            raise UnknownFormat(
                f"{origin} has format {found!r}; this version reads {FORMAT!r}: use the version that "
                "wrote it"
            )
        try:
            return _STATUS.validate_python(fields)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UnreadableBuild(f"{origin}: {where}: {first['msg'].lower()}") from None


_STATUS = TypeAdapter(BuildStatus)
