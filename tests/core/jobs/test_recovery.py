"""What a server finds when it starts after one that was stopped, or killed."""

import asyncio

import pytest
from attrs import evolve
from scripted_supervisor import CONTENT, ScriptedSupervisor, a_job, an_output

from sglang_core import JobQuery
from sglang_plugins_builtin.sqlite_jobs.stores import SqliteJobStore


def leave(place, *jobs):
    """Write records as a killed server leaves them."""
    store = SqliteJobStore().open(place.store)
    for job in jobs:
        store.create(evolve(job, status="queued"))
        for status in {"cancelling": ("in_progress", "cancelling"), "queued": ()}.get(job.status, ("in_progress",)):
            store.change(job.id, lambda _, job=job, status=status: evolve(job, status=status))
    store.close()


def test_queued_jobs_run_in_their_order(place):
    jobs = [a_job(i) for i in (3, 1, 2)]
    leave(place, *jobs)

    async def scenario():
        supervisor = ScriptedSupervisor("starting")
        async with place.running(supervisor, max_queue=1) as service:  # smaller than what was accepted
            assert service.statistics().queued == 3
            assert [service.queue_position(a_job(i).id) for i in (1, 2, 3)] == [0, 1, 2]
            supervisor.enter("ready")
            for job in jobs:
                assert (await service.wait(job.id)).status == "completed"
            assert supervisor.works == [[a_job(i).id] for i in (1, 2, 3)]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("options", "attempts", "status"),
    [
        ({}, 1, "completed"),
        ({}, 2, "failed"),
        ({"max_attempts": 3}, 2, "completed"),
        ({"on_interrupted": "fail"}, 1, "failed"),
    ],
)
def test_an_interrupted_job_runs_again_or_fails_by_choice(options, attempts, status, place):
    leave(place, a_job(1, status="in_progress", attempts=attempts, progress=0.5, started_at=5.0))

    async def scenario():
        async with place.running(**options) as service:
            job = await service.wait(a_job(1).id)
        assert job.status == status
        if status == "failed":
            assert (job.error.code, job.attempts) == ("interrupted", attempts)
            assert job.error.message.startswith("the server ended while the job ran")
            assert job.error.remedy == "send the request again"
        else:
            assert job.attempts == attempts + 1

    asyncio.run(scenario())


def test_a_job_that_was_being_cancelled_is_cancelled(place):
    leave(place, a_job(1, status="cancelling", attempts=1))

    async def scenario():
        supervisor = ScriptedSupervisor()
        async with place.running(supervisor) as service:
            assert (await service.get(a_job(1).id)).status == "cancelled"
            assert supervisor.works == []

    asyncio.run(scenario())


def test_what_this_server_can_not_make_fails_with_the_reason(place):
    leave(place, a_job(1, settings={"prompt": "impossible"}))

    async def scenario():
        async with place.running() as service:
            job = await service.wait(a_job(1).id)
            assert (job.status, job.error.code) == ("failed", "invalid_request")
            assert job.error.message == "this model makes no such thing"

    asyncio.run(scenario())


def test_finished_outputs_are_not_made_again(place):
    job = a_job(1, status="in_progress", attempts=1)
    (place.outputs / f"{job.id}.png").write_bytes(CONTENT)
    leave(place, evolve(job, outputs=(an_output(file=f"{job.id}.png"),)))

    async def scenario():
        supervisor = ScriptedSupervisor()
        async with place.running(supervisor) as service:
            ended = await service.wait(job.id)
            assert (ended.status, ended.attempts, supervisor.works) == ("completed", 1, [])
            assert service.content_path(ended, 0).read_bytes() == CONTENT

    asyncio.run(scenario())


def test_outputs_on_record_that_vanished_are_made_again(place):
    job = a_job(1, status="in_progress", attempts=1, outputs=(an_output(file="gone.png"),))
    leave(place, job)

    async def scenario():
        async with place.running() as service:
            ended = await service.wait(job.id)
            assert (ended.status, ended.attempts) == ("completed", 2)
            assert [output.file for output in ended.outputs] == [f"{job.id}.png"]

    asyncio.run(scenario())


def test_a_stop_parks_what_runs_for_the_next_start(place, until):
    async def scenario():
        supervisor = ScriptedSupervisor()
        async with place.running(supervisor, grace_s=0.05) as service:
            await service.submit(a_job(1, settings={"steps": 10_000, "step_s": 0.01}))
            await service.submit(a_job(2))
            await until(lambda: supervisor.works)
        async with place.running(ScriptedSupervisor("starting"), max_attempts=1, on_interrupted="fail") as service:
            jobs = await service.list(JobQuery(order="asc"))
            assert [(job.status, job.attempts) for job in jobs] == [("queued", 0), ("queued", 0)]

    asyncio.run(scenario())


def test_a_stop_waits_for_what_ends_in_time(place, until):
    async def scenario():
        supervisor = ScriptedSupervisor()
        async with place.running(supervisor, grace_s=10) as service:
            await service.submit(a_job(1, settings={"steps": 10, "step_s": 0.02}))
            await until(lambda: supervisor.works)
        async with place.running(ScriptedSupervisor("starting")) as service:
            assert (await service.get(a_job(1).id)).status == "completed"

    asyncio.run(scenario())


def test_an_engine_that_does_not_stop_does_not_stop_the_stop(place, until, monkeypatch):
    monkeypatch.setattr("sglang_core.jobs.dispatching._STOP_S", 0.1)

    async def scenario():
        supervisor = ScriptedSupervisor()
        supervisor.cancel = lambda _: None
        async with place.running(supervisor, grace_s=0) as service:
            await service.submit(a_job(1, settings={"steps": 10_000, "step_s": 0.01}))
            await until(lambda: supervisor.works)
        async with place.running(ScriptedSupervisor("starting")) as service:
            assert (await service.get(a_job(1).id)).status == "queued"

    asyncio.run(scenario())


def test_a_store_that_forgets_fails_its_jobs_when_the_server_stops(place):
    async def scenario():
        service = place.service(ScriptedSupervisor("starting"), store="memory")
        await service.start()
        (place.inputs / "upload.png").write_bytes(b"1")
        await service.submit(a_job(1, input_files=("upload.png",)))
        waiting = asyncio.ensure_future(service.wait(a_job(1).id))
        await asyncio.sleep(0)
        await service.stop(0)
        job = await waiting
        assert (job.status, job.error.code, job.error.message) == ("failed", "stopped", "the server was stopped")
        assert not list(place.inputs.iterdir())

    asyncio.run(scenario())


def test_listeners_end_when_the_server_stops(place):
    async def scenario():
        service = place.service(ScriptedSupervisor("starting"))
        await service.start()
        await service.submit(a_job(1))
        events = asyncio.ensure_future(_all(service.events(a_job(1).id)))
        waiting = asyncio.ensure_future(service.wait(a_job(1).id))
        await asyncio.sleep(0)
        await service.stop(0)
        assert [event.kind for event in await events] == ["queued"]
        assert (await waiting).status == "queued"

    asyncio.run(scenario())


async def _all(events):
    return [event async for event in events]
