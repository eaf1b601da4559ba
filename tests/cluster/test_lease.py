"""Leader election against a real API server: whatever it does, at most one candidate works."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from shashin.errors import KubernetesNotFound, KubernetesUnavailable
from shashin.kube.client import KubeClient
from shashin.kube.credentials import KubeconfigCredentials
from shashin.kube.lease import LeaderElection, _seconds
from shashin.kube.lease_record import LeaseTimes, record_of
from shashin.kube.resource import KubeObject
from shashin.kube.resources import LEASES
from shashin.runtime.health import Health
from shashin.runtime.scope import Loop, LoopScope
from tests.support.api_proxy import ApiProxy
from tests.support.loops import running
from tests.support.waiting import until

QUICK = LeaseTimes(duration_seconds=2.0, renew_seconds=1.2, retry_seconds=0.1)
NAME = "controller"


class Workers:
    """Who works, and whether two ever did at once."""

    def __init__(self) -> None:
        self.working: list[str] = []
        self.history: list[str] = []
        self.most = 0
        self.may_end = asyncio.Event()
        """Ends an end that takes a while."""

    async def work(self, name: str, *, ends_after: float = 0.0) -> None:
        """Work until cancelled; the end may take a while."""
        self.working.append(name)
        self.history.append(name)
        self.most = max(self.most, len(self.working))
        try:
            await asyncio.Event().wait()
        finally:
            if ends_after:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.may_end.wait(), ends_after)
            self.working.remove(name)


class Candidate:
    """A candidate that runs."""

    def __init__(self, name: str, election: LeaderElection, workers: Workers) -> None:
        self.name, self.election, self._workers = name, election, workers
        self.health = Health()
        self.overruns: list[str] = []
        self.ends_after = 0.0

    @property
    def leads(self) -> bool:
        """Whether it works now."""
        return self.name in self._workers.working

    async def run(self, loop: LoopScope) -> None:
        """Take part in the election."""
        await self.election.run(
            loop, lambda: self._workers.work(self.name, ends_after=self.ends_after)
        )


@pytest.fixture
def workers() -> Iterator[Workers]:
    """The workers of a test, of whom two never worked at once."""
    workers = Workers()
    yield workers
    assert workers.most <= 1
    assert workers.working == []


@asynccontextmanager
async def candidate(
    client: KubeClient, namespace: str, workers: Workers, name: str
) -> AsyncIterator[Candidate]:
    """Run a candidate while the context is open."""
    overruns: list[str] = []
    election = LeaderElection(
        client,
        NAME,
        namespace=namespace,
        identity=name,
        times=QUICK,
        on_overrun=lambda: overruns.append(name),
    )
    made = Candidate(name, election, workers)
    made.overruns = overruns
    async with running(Loop(name, made.run), health=made.health):
        yield made


async def holder(client: KubeClient, namespace: str) -> str:
    """Return the holder of the lease, without what makes its identity unique."""
    try:
        lease = await client.get(LEASES, NAME, namespace=namespace)
    except KubernetesNotFound:
        return ""
    return record_of(lease).holder.partition("_")[0]


async def test_one_leads_and_the_other_follows_at_a_clean_stop(
    client: KubeClient, namespace: str, workers: Workers
) -> None:
    async with candidate(client, namespace, workers, "one") as one:
        await until(lambda: one.leads, "one leads")
        assert await holder(client, namespace) == "one"
        async with candidate(client, namespace, workers, "two") as two:
            lease = await client.get(LEASES, NAME, namespace=namespace)
            renewals = lease["spec"]["renewTime"]

            async def was_renewed() -> bool:
                now = await client.get(LEASES, NAME, namespace=namespace)
                return bool(now["spec"]["renewTime"] != renewals)

            await until(was_renewed, "the leader renews")
            assert not two.leads
    assert workers.history == ["one"]
    assert await holder(client, namespace) == ""


async def test_a_released_lease_is_taken_by_the_next_one(
    client: KubeClient, namespace: str, workers: Workers
) -> None:
    async with candidate(client, namespace, workers, "one") as one:
        await until(lambda: one.leads, "one leads")
    async with candidate(client, namespace, workers, "two") as two:
        await until(lambda: two.leads, "two leads")
        lease = await client.get(LEASES, NAME, namespace=namespace)
        assert lease["spec"]["leaseTransitions"] == 1
        assert lease["spec"]["leaseDurationSeconds"] == 2
    assert workers.history == ["one", "two"]


@pytest.mark.parametrize("outage", ["refuses", "hangs"])
@pytest.mark.parametrize("ends_after", [0.0, 0.3], ids=["ends at once", "ends slowly"])
async def test_a_leader_that_is_cut_off_stops_before_another_one_begins(
    client: KubeClient,
    through: KubeClient,
    proxy: ApiProxy,
    namespace: str,
    workers: Workers,
    outage: str,
    ends_after: float,
) -> None:
    async with candidate(through, namespace, workers, "cut-off") as cut_off:
        cut_off.ends_after = ends_after
        await until(lambda: cut_off.leads, "it leads")
        async with candidate(client, namespace, workers, "other") as other:
            if outage == "refuses":
                proxy.refuse()
            else:
                proxy.hang()
            await until(lambda: other.leads, "the other leads")
            assert not cut_off.leads
            assert cut_off.health.problems() != []
            assert cut_off.health.liveness_problems() == []
            proxy.come_back()
            await until(lambda: not cut_off.health.problems(), "it is connected again")
            assert other.leads
            assert not cut_off.leads
        await until(lambda: cut_off.leads, "it leads again")
        assert cut_off.overruns == []
    assert workers.history == ["cut-off", "other", "cut-off"]


async def test_a_short_outage_changes_nothing(
    through: KubeClient, proxy: ApiProxy, namespace: str, workers: Workers
) -> None:
    async with candidate(through, namespace, workers, "one") as one:
        await until(lambda: one.leads, "it leads")
        for _ in range(3):
            proxy.refuse()
            await until(one.health.problems, "the outage is noticed")
            proxy.come_back()
            await until(lambda: not one.health.problems(), "it has renewed again")
        assert one.leads
    assert workers.history == ["one"]


async def test_a_lease_that_was_deleted_makes_no_second_leader(
    client: KubeClient, namespace: str, workers: Workers
) -> None:
    async with (
        candidate(client, namespace, workers, "one"),
        candidate(client, namespace, workers, "two"),
    ):
        await until(lambda: workers.working, "one of them leads")
        for _ in range(5):
            lease = await client.get(LEASES, NAME, namespace=namespace)
            uid = lease["metadata"]["uid"]
            await client.delete(LEASES, NAME, namespace=namespace)

            async def is_new(uid: str = uid) -> bool:
                try:
                    lease = await client.get(LEASES, NAME, namespace=namespace)
                except KubernetesNotFound:
                    return False
                return bool(lease["metadata"]["uid"] != uid)

            await until(is_new, "the lease is there again")
        await until(lambda: workers.working, "one of them leads")


async def test_a_leader_whose_lease_was_given_to_another_stops(
    client: KubeClient, namespace: str, workers: Workers
) -> None:
    async with candidate(client, namespace, workers, "one") as one:
        await until(lambda: one.leads, "it leads")
        await client.merge_patch(
            LEASES, NAME, {"spec": {"holderIdentity": "a person"}}, namespace=namespace
        )
        await until(lambda: not one.leads, "it stopped")
        # The person never renews it.
        await until(lambda: one.leads, "it leads again")


async def test_a_leader_whose_work_failed_releases_the_lease_and_fails(
    client: KubeClient, namespace: str, workers: Workers
) -> None:
    async def fails() -> None:
        raise ValueError("broken")

    election = LeaderElection(client, NAME, namespace=namespace, identity="one", times=QUICK)
    loop = LoopScope(Health().register("one"), asyncio.Event())
    with pytest.raises(ValueError, match="broken"):
        await election.run(loop, fails)
    assert not election.leading
    assert await holder(client, namespace) == ""
    lease = await client.get(LEASES, NAME, namespace=namespace)
    assert lease["spec"]["acquireTime"], "it was taken before"
    async with candidate(client, namespace, workers, "two") as two:
        await until(lambda: two.leads, "two leads")


async def test_work_that_ends_by_itself_ends_the_election(
    client: KubeClient, namespace: str
) -> None:
    led = []

    async def work() -> None:
        led.append(await holder(client, namespace))

    election = LeaderElection(client, NAME, namespace=namespace, identity="one", times=QUICK)
    await election.run(LoopScope(Health().register("one"), asyncio.Event()), work)
    assert led == ["one"]
    assert await holder(client, namespace) == ""


async def test_work_that_does_not_end_in_time_ends_the_process(
    client: KubeClient, through: KubeClient, proxy: ApiProxy, namespace: str, workers: Workers
) -> None:
    async with candidate(through, namespace, workers, "stubborn") as stubborn:
        stubborn.ends_after = 60.0
        await until(lambda: stubborn.leads, "it leads")
        proxy.refuse()
        await until(lambda: stubborn.overruns, "the process would be killed")
        # The lease is not free even now.
        lease = await client.get(LEASES, NAME, namespace=namespace)
        assert record_of(lease).holder == stubborn.election.identity
        workers.may_end.set()


class LosesAnswers(KubeClient):
    """A client whose requests are carried out, but whose answers are lost every other time."""

    writes = 0

    async def create(self, *args: Any, **kwargs: Any) -> KubeObject:
        return self._lost(await super().create(*args, **kwargs))

    async def replace(self, *args: Any, **kwargs: Any) -> KubeObject:
        return self._lost(await super().replace(*args, **kwargs))

    def _lost(self, found: KubeObject) -> KubeObject:
        self.writes += 1
        if self.writes % 2:
            raise KubernetesUnavailable("the answer is lost")
        return found


async def test_a_leader_whose_answers_are_lost_goes_on_and_stays_the_only_one(
    kubeconfig: Path, client: KubeClient, namespace: str, workers: Workers
) -> None:
    losing = LosesAnswers(KubeconfigCredentials(str(kubeconfig)))
    async with candidate(losing, namespace, workers, "losing") as one:
        await until(lambda: one.leads, "it leads")
        async with candidate(client, namespace, workers, "other"):
            before = losing.writes
            await until(lambda: losing.writes > before + 20, "it renewed often")
            assert one.leads
    assert workers.history[0] == "losing"
    await losing.close()


async def test_who_created_the_lease_waits_even_if_the_answer_was_lost(
    kubeconfig: Path, namespace: str
) -> None:
    losing = LosesAnswers(KubeconfigCredentials(str(kubeconfig)))
    election = LeaderElection(losing, NAME, namespace=namespace, times=QUICK)
    loop = LoopScope(Health().register("one"), asyncio.Event())
    term = await election._acquire(loop)
    assert losing.writes == 2, "a create without an answer, then a replace"
    assert term is not None
    assert term.begins - term.since > QUICK.duration_seconds
    await election._release()
    assert (await election._acquire(loop) or term).begins == 0.0, "a released lease is free at once"
    await losing.close()


class AnswersLate(KubeClient):
    """A client that notes when it last wrote, and has the answer later."""

    sent = 0.0

    async def create(self, *args: Any, **kwargs: Any) -> KubeObject:
        return await self._late(super().create(*args, **kwargs))

    async def replace(self, *args: Any, **kwargs: Any) -> KubeObject:
        return await self._late(super().replace(*args, **kwargs))

    async def _late(self, request: Awaitable[KubeObject]) -> KubeObject:
        self.sent = _seconds()
        found = await request
        await asyncio.sleep(0.05)
        return found


async def test_a_leaders_time_counts_from_before_the_request_for_it(
    kubeconfig: Path, namespace: str
) -> None:
    late = AnswersLate(KubeconfigCredentials(str(kubeconfig)))
    election = LeaderElection(late, NAME, namespace=namespace, times=QUICK)
    loop = LoopScope(Health().register("one"), asyncio.Event())
    term = await election._acquire(loop)
    assert term is not None
    assert term.since <= late.sent
    before = term.since
    assert await election._renew(loop, term)
    assert before < term.since <= late.sent
    await election._release()
    await late.close()


async def test_two_processes_of_one_name_have_two_identities(client: KubeClient) -> None:
    assert (
        LeaderElection(client, NAME, identity="pod").identity
        != LeaderElection(client, NAME, identity="pod").identity
    )


async def test_candidates_that_come_and_go_never_work_at_once(
    client: KubeClient, through: KubeClient, proxy: ApiProxy, namespace: str, workers: Workers
) -> None:
    def leads(one: Candidate) -> Callable[[], bool]:
        return lambda: one.leads

    async def comes_and_goes(name: str, of: KubeClient) -> None:
        for _ in range(3):
            async with candidate(of, namespace, workers, name) as one:
                await until(leads(one), f"{name} leads")

    async def disturbs() -> None:
        while True:
            proxy.refuse()
            await asyncio.sleep(0.7)
            proxy.come_back()
            await asyncio.sleep(0.3)

    disturbing = asyncio.ensure_future(disturbs())
    try:
        await asyncio.gather(
            comes_and_goes("one", client),
            comes_and_goes("two", client),
            comes_and_goes("disturbed", through),
        )
    finally:
        disturbing.cancel()
    assert sorted(workers.history) == sorted(["one", "two", "disturbed"] * 3)
