"""What drills are made of: a scene that is watched, and the faults of a whole system."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tests.drills.alert_watch import AlertWatch
from tests.support.running_system import ConnectedSystem
from tests.support.waiting import until

_SET_ON_TOPIC = 1
_numbers = count()

GROUPS = ("objectives", "promises", "searching", "pipeline", "tiers", "processes")
USUAL_FACTOR = 60.0
"""An hour becomes a minute."""


@dataclass(frozen=True)
class SystemScene:
    """A whole system that a Prometheus watches."""

    system: ConnectedSystem
    alerts: AlertWatch

    # --- load -----------------------------------------------------------------------------------

    @asynccontextmanager
    async def searching(self) -> AsyncIterator[None]:
        """Search by photo all the time, and begin with answers."""
        photo = self.system.corpus[0].photos[0]

        async def search() -> None:
            await self.system.answer(photo=photo, k=10)

        async with repeated(search, every_seconds=0.1):
            yield

    @asynccontextmanager
    async def listing(self) -> AsyncIterator[None]:
        """Publish listings all the time."""
        photo = self.system.corpus[1].photos[0]

        async def publish() -> None:
            await self.system.publish(f"drill-{next(_numbers)}", [photo])

        async with repeated(publish, every_seconds=0.5):
            yield

    # --- faults ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def hung(self, name: str) -> AsyncIterator[None]:
        """A process hangs, and nobody restarts it."""
        with self.system.running.supervisor_paused():
            self.system.running.send(name, signal.SIGSTOP)
            try:
                yield
            finally:
                self.system.running.send(name, signal.SIGCONT)

    @asynccontextmanager
    async def dead(self, name: str) -> AsyncIterator[None]:
        """A process has died, and nobody restarts it."""
        with self.system.running.supervisor_paused():
            self.system.running.send(name, signal.SIGKILL)
            yield
        await self.system.running.until_well()

    @asynccontextmanager
    async def topic_setting(self, topic: str, name: str, value: str) -> AsyncIterator[None]:
        """A topic has another setting."""
        kafka = self.system.system.kafka_address()
        before = await topic_settings(kafka, topic)
        await set_topic(kafka, topic, before | {name: value})
        try:
            yield
        finally:
            await set_topic(kafka, topic, before)


Fault = Callable[[SystemScene], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Drill:
    """How an alert is caused in a whole system."""

    fault: Fault
    """Causes the fault when it is entered, and ends it when it is left."""
    says: str
    """A pattern that is found in what the alert says: it names the thing."""
    load: Fault | None = None
    """What the system does before, during and after the fault."""
    factors: Mapping[str, float] = field(default_factory=dict)
    """By group, where another factor than the usual one suits."""

    def all_factors(self) -> dict[str, float]:
        """Return the factor of each group."""
        return {f"shashin.{g}": self.factors.get(g, USUAL_FACTOR) for g in GROUPS}


@asynccontextmanager
async def repeated(do: Callable[[], object], *, every_seconds: float) -> AsyncIterator[None]:
    """Call something again and again; an error of it ends the test."""

    async def run() -> None:
        while True:
            await do()  # type: ignore[misc]
            await asyncio.sleep(every_seconds)

    task = asyncio.ensure_future(run())
    try:
        yield
        assert not task.done(), f"the load has ended: {task}"
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def topic_settings(kafka: str, topic: str) -> dict[str, str]:
    """Return what was set for the topic itself."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        return await _settings(admin, topic)
    finally:
        await admin.close()


async def set_topic(kafka: str, topic: str, settings: Mapping[str, str]) -> None:
    """Replace what was set for a topic, and wait until the broker has it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()

    async def applied() -> bool:
        return await _settings(admin, topic) == settings

    try:
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, dict(settings))
        (response,) = await admin.alter_configs([resource])
        assert not response.resources[0][0], response
        await until(applied, f"{topic} has {settings}")
    finally:
        await admin.close()


async def _settings(admin: AIOKafkaAdminClient, topic: str) -> dict[str, str]:
    resource = ConfigResource(ConfigResourceType.TOPIC, topic)
    (response,) = await admin.describe_configs([resource])
    ((_, _, _, _, entries),) = response.resources
    return {entry[0]: entry[1] for entry in entries if int(entry[3]) == _SET_ON_TOPIC}
