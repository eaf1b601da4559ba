"""Leader election by a Lease: at most one process at a time does some work.

A leader counts its time from before it sent a renewal, a candidate from when it has seen its result,
and both on clocks of their own. So the leader's time is always over first: at ``renew_seconds`` it
cancels its work and waits for its end, and if the work has not ended shortly before
``duration_seconds``, the process is killed. Whatever the API server does, whether it refuses, hangs,
or accepts a renewal without saying so, only shortens a leader's time.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import TypeVar

from shashin.errors import (
    KubernetesConflict,
    KubernetesNotFound,
    KubernetesUnavailable,
    ShashinError,
)
from shashin.kube.client import KubeClient
from shashin.kube.lease_record import (
    LeaseRecord,
    LeaseTimes,
    may_take,
    new_spec,
    record_of,
    released,
    renewed,
    taken,
)
from shashin.kube.resource import OWN_NAMESPACE, KubeObject
from shashin.kube.resources import LEASES
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import LoopScope

log = get_logger(__name__)

T = TypeVar("T")

Work = Callable[[], Awaitable[None]]
"""Is cancelled when the process no longer leads, or must stop."""

_RELEASE_SECONDS = 3.0
_WATCHDOG_SECONDS = 0.5


def _seconds() -> float:
    # Counts while the machine is suspended, as the other candidates' clocks do.
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def _kill_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class LeaderElection:
    """One candidate for a lease."""

    def __init__(
        self,
        client: KubeClient,
        name: str,
        *,
        namespace: str = OWN_NAMESPACE,
        identity: str = "",
        times: LeaseTimes | None = None,
        on_overrun: Callable[[], None] = _kill_process,
    ) -> None:
        """Take part under an identity, which is made unique.

        ``on_overrun`` is called, in a thread, when cancelled work does not end in time.
        """
        self._client = client
        self._name = name
        self._namespace = namespace
        # A process that starts again under the same name must not take itself for the leader.
        self.identity = f"{identity or os.uname().nodename}_{uuid.uuid4().hex[:12]}"
        self._times = times or LeaseTimes()
        self._on_overrun = on_overrun
        self._seen: LeaseRecord | None = None
        self._seen_since = 0.0
        self._lease: KubeObject | None = None
        """The lease as this process wrote it; None while it does not hold it."""
        self._unsure = False
        """Whether a request to create the lease was sent whose answer is not known."""
        self.leading = False
        """Whether the work runs."""

    async def run(self, loop: LoopScope, work: Work) -> None:
        """Lead whenever the lease can be had, until the loop must stop or the work ends.

        Raises:
            Exception: what the work raised, after the lease was released.
        """
        while loop.next_turn():
            term = await self._acquire(loop)
            if term is not None and await self._lead(loop, work, term):
                return

    # --- acquiring ------------------------------------------------------------------------------

    async def _acquire(self, loop: LoopScope) -> _Term | None:
        """Wait until the lease is held; None if the loop must stop."""
        while loop.next_turn():
            try:
                with loop.waiting_for(self._what):
                    term = await self._within(self._times.renew_seconds, self._try_to_take())
            except KubernetesConflict:
                # Another one was faster.
                term = None
            except ShashinError as error:
                term = None
                self._report(loop, error)
            else:
                loop.clear(self._what)
            if term is not None:
                return term
            await loop.sleep(self._times.retry_seconds)
        return None

    async def _try_to_take(self) -> _Term | None:
        try:
            lease = await self._client.get(LEASES, self._name, namespace=self._namespace)
        except KubernetesNotFound:
            return await self._create()
        record, now = record_of(lease), _seconds()
        if self._seen is None or (record.uid, record.version) != (
            self._seen.uid,
            self._seen.version,
        ):
            self._seen, self._seen_since = record, now
        if not may_take(record, now - self._seen_since, self.identity, self._times):
            return None
        unsure = self._unsure and record.holder == self.identity
        since = _seconds()
        self._lease = await self._client.replace(
            LEASES, taken(lease, self.identity, self._times), namespace=self._namespace
        )
        self._unsure = False
        return _Term(since, begins=self._after_any_other() if unsure else 0.0)

    async def _create(self) -> _Term:
        since = _seconds()
        self._unsure = True
        self._lease = await self._client.create(
            LEASES,
            {
                "apiVersion": LEASES.api_version,
                "kind": "Lease",
                "metadata": {"name": self._name},
                "spec": new_spec(self.identity, self._times),
            },
            namespace=self._namespace,
        )
        self._unsure = False
        return _Term(since, begins=self._after_any_other())

    def _after_any_other(self) -> float:
        # Someone may have deleted the lease of a leader, which notices it at its next renewal.
        return _seconds() + self._times.duration_seconds

    # --- leading --------------------------------------------------------------------------------

    async def _lead(self, loop: LoopScope, work: Work, term: _Term) -> bool:
        """Run the work while the lease is held; returns whether the work ended by itself."""
        log.info("acquired the lease", lease=self._name, identity=self.identity)
        watchdog = _Watchdog(term, self._times, self._name, self._on_overrun)
        over = asyncio.Event()
        working = asyncio.ensure_future(self._work(work, term))
        renewing = asyncio.ensure_future(self._keep(loop, term))
        for task in (working, renewing):
            task.add_done_callback(lambda _: over.set())
        try:
            while not loop.stopping and not over.is_set():
                await loop.wait(over, self._times.retry_seconds)
            by_itself = working.done()
        finally:
            # Also when this task is cancelled: nothing may run on, and only then is it released.
            try:
                await _end(renewing, working)
            finally:
                watchdog.stop()
                await asyncio.shield(self._release())
        for task in (working, renewing):
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        return by_itself

    async def _work(self, work: Work, term: _Term) -> None:
        await asyncio.sleep(max(0.0, term.begins - _seconds()))
        self.leading = True
        try:
            await work()
        finally:
            self.leading = False

    async def _keep(self, loop: LoopScope, term: _Term) -> None:
        """Renew the lease until it is lost."""
        held = True
        while held:
            await asyncio.sleep(self._times.retry_seconds)
            held = await self._renew(loop, term)
        log.warning("lost the lease: cancelling the work", lease=self._name)

    async def _renew(self, loop: LoopScope, term: _Term) -> bool:
        """Renew the lease; returns whether it is still held."""
        while (left := term.since + self._times.renew_seconds - _seconds()) > 0:
            try:
                with loop.waiting_for(self._what):
                    since = await self._within(left, self._try_to_renew())
            except ShashinError as error:
                self._report(loop, error)
                # The lease may have been renewed all the same, or changed by a person.
                await asyncio.sleep(min(self._times.retry_seconds, left))
                continue
            loop.clear(self._what)
            if since is None:
                self._lease = None
                return False
            term.since = since
            return True
        return False

    async def _try_to_renew(self) -> float | None:
        """Return when the renewal was sent; None if another one holds the lease."""
        since = _seconds()
        if self._lease is not None:
            try:
                self._lease = await self._client.replace(
                    LEASES, renewed(self._lease), namespace=self._namespace
                )
            except (KubernetesConflict, KubernetesNotFound):
                self._lease = None
            else:
                return since
        since = _seconds()
        try:
            lease = await self._client.get(LEASES, self._name, namespace=self._namespace)
        except KubernetesNotFound:
            # Deleted: whoever creates it first holds it, and another one waits before it leads.
            await self._create()
            return since
        if record_of(lease).holder != self.identity:
            return None
        self._lease = await self._client.replace(LEASES, renewed(lease), namespace=self._namespace)
        return since

    async def _release(self) -> None:
        lease, self._lease = self._lease, None
        if lease is None:
            return
        try:
            await self._within(
                _RELEASE_SECONDS,
                self._client.replace(LEASES, released(lease), namespace=self._namespace),
            )
        except ShashinError as error:
            log.info("did not release the lease: it expires", error=error.message)
        else:
            log.info("released the lease", lease=self._name)

    # --- requests -------------------------------------------------------------------------------

    @property
    def _what(self) -> str:
        return f"lease {self._name!r}"

    def _report(self, loop: LoopScope, error: ShashinError) -> None:
        loop.degraded(self._what, error.message)
        log.warning("cannot use the lease", lease=self._name, error=error.message)

    async def _within(self, seconds: float, request: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(seconds):
                return await request
        except TimeoutError as error:
            raise KubernetesUnavailable(
                f"the API server did not respond about {self._what} within {seconds:.1f} s"
            ) from error


class _Term:
    """The time for which a lease is held, on the clock of ``_seconds``."""

    def __init__(self, since: float, *, begins: float = 0.0) -> None:
        self.since = since
        """When the last successful request for it was sent."""
        self.begins = begins
        """When the work may begin."""


class _Watchdog:
    """A thread, so that work which blocks the event loop ends with its process, too."""

    def __init__(
        self, term: _Term, times: LeaseTimes, name: str, on_overrun: Callable[[], None]
    ) -> None:
        self._term, self._times, self._name = term, times, name
        self._on_overrun = on_overrun
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="lease watchdog", daemon=True).start()

    def _watch(self) -> None:
        while (left := self._term.since + self._times.exit_seconds - _seconds()) > 0:
            # Briefly: a wait does not count the time for which the machine is suspended.
            if self._over.wait(min(left, _WATCHDOG_SECONDS)):
                return
        if self._over.is_set():
            return
        log.critical(
            "the work did not end in time after its lease was lost: ending the process",
            lease=self._name,
        )
        self._on_overrun()

    def stop(self) -> None:
        """End the thread: the work has ended."""
        self._over.set()


async def _end(*tasks: asyncio.Future[None]) -> None:
    """Cancel tasks until they have ended, even while the caller is cancelled itself."""
    cancelled = False
    while unfinished := [task for task in tasks if not task.done()]:
        for task in unfinished:
            task.cancel()
        try:
            await asyncio.wait(unfinished)
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
