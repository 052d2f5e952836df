"""Jobs on a store that is slow, or whose disk is full."""

import asyncio
import threading

import pytest
from scripted_supervisor import ScriptedSupervisor, a_job

from sglang_core import JobQuery, OutputError
from sglang_plugins_builtin.sqlite_jobs.stores import SqliteJobStore


class FullDisk:
    """A store on a disk that is full while ``is_full``."""

    def __init__(self, store):
        self._store = store
        self.is_full = False

    def __getattr__(self, name):
        if self.is_full and name in {"create", "change", "delete"}:

            def refuse(*_):
                raise OutputError("job store: no space is left there", "free some space")

            return refuse
        return getattr(self._store, name)


def test_a_full_disk_refuses_new_jobs_and_forgets_no_finished_one(place, until):
    async def scenario():
        store = FullDisk(SqliteJobStore().open(place.store))
        supervisor = ScriptedSupervisor()
        async with place.running(supervisor, store=store) as service:
            job = await service.submit(a_job(1, settings={"steps": 5, "step_s": 0.01}))
            await until(lambda: service.statistics().running)
            store.is_full = True
            with pytest.raises(OutputError, match="no space is left"):
                await service.submit(a_job(2))
            await until(lambda: service.statistics().problem)
            assert (await service.get(job.id)).status == "in_progress"
            store.is_full = False
            assert (await service.wait(job.id, 60)).status == "completed"
            assert service.statistics().problem == ""
            assert [job.id for job in await service.list(JobQuery())] == [job.id]

    asyncio.run(scenario())


def test_a_job_that_is_cancelled_before_its_start_is_on_record_ends_once(place, until):
    class SlowStore:
        """A store that changes nothing before it may."""

        def __init__(self, store):
            self._store = store
            self.may_change = threading.Event()

        def __getattr__(self, name):
            return getattr(self._store, name)

        def change(self, *values):
            self.may_change.wait(60)
            return self._store.change(*values)

    async def scenario():
        store, supervisor, finished = SlowStore(SqliteJobStore().open(place.store)), ScriptedSupervisor(), []
        async with place.running(supervisor, store=store) as service:
            service.listeners.append(finished.append)
            job = await service.submit(a_job(1, settings={"steps": 10_000, "step_s": 0.01}))
            await until(lambda: supervisor.works)
            cancelling = asyncio.create_task(service.cancel(job.id))
            await asyncio.sleep(0)
            assert (await service.get(job.id)).status == "queued"
            store.may_change.set()
            await cancelling
            assert (await service.wait(job.id, 60)).status == "cancelled"
            assert [job.status for job in finished] == ["cancelled"]

    asyncio.run(scenario())


class HeldStore:
    """A store that keeps no new job before it may, and then perhaps can not."""

    def __init__(self, store):
        self._store = store
        self.may_create = threading.Event()
        self.is_full = False

    def __getattr__(self, name):
        return getattr(self._store, name)

    def create(self, job):
        self.may_create.wait(60)
        if self.is_full:
            raise OutputError("no space is left", "make space")
        return self._store.create(job)


def test_the_engine_begins_while_a_job_is_being_put_on_record_and_nothing_is_told_before(place, until):
    async def scenario():
        store, supervisor, told = HeldStore(SqliteJobStore().open(place.store)), ScriptedSupervisor(), []
        async with place.running(supervisor, store=store) as service:
            service.event_listeners.append(told.append)
            submission = asyncio.create_task(service.submit(a_job(1)))
            await until(lambda: supervisor.works)
            await asyncio.sleep(0.2)  # it has long run to its end
            assert told == []
            assert not submission.done()
            store.may_create.set()
            job = await service.wait((await submission).id, 60)
            assert (job.status, job.attempts, job.outputs[0].file) == ("completed", 1, f"{job.id}.png")
            assert [event.kind for event in told] == ["queued", "started", "progress", "progress", "finished"]
            assert place.output_names == [f"{job.id}.png"]

    asyncio.run(scenario())


def test_a_job_that_can_not_be_put_on_record_is_stopped_and_leaves_nothing(place, until):
    async def scenario():
        store, supervisor, told = HeldStore(SqliteJobStore().open(place.store)), ScriptedSupervisor(), []
        async with place.running(supervisor, store=store) as service:
            service.event_listeners.append(told.append)
            submission = asyncio.create_task(service.submit(a_job(1, settings={"steps": 10_000, "step_s": 0.01})))
            await until(lambda: supervisor.works)
            store.is_full = True
            store.may_create.set()
            with pytest.raises(OutputError, match="no space is left"):
                await submission
            store.is_full = False
            other = await service.wait((await service.submit(a_job(2))).id, 60)  # the engine is free again
            assert supervisor.cancelled == {a_job(1).id}
            assert {event.job.id for event in told} == {other.id}
            assert [job.id for job in await service.list(JobQuery())] == [other.id]
            assert place.output_names == [f"{other.id}.png"]

    asyncio.run(scenario())


def test_a_job_with_an_idempotency_key_does_not_begin_before_it_is_known_to_be_new(place, until):
    async def scenario():
        store, supervisor = HeldStore(SqliteJobStore().open(place.store)), ScriptedSupervisor()
        async with place.running(supervisor, store=store) as service:
            submission = asyncio.create_task(service.submit(a_job(1, idempotency_key="k")))
            await asyncio.sleep(0.2)
            assert supervisor.works == []
            store.may_create.set()
            assert (await service.wait((await submission).id, 60)).status == "completed"

    asyncio.run(scenario())
