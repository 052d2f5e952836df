"""A small job runs in the middle of a large one; each ends once, and as if it had been alone."""

import asyncio

import pytest
from scripted_supervisor import ScriptedSupervisor, a_job

LONG = {"steps": 10_000, "step_s": 0.005}


async def long_job(service, supervisor, until, number=1, **settings):
    job = await service.submit(a_job(number, settings={**LONG, **settings}))
    await until(lambda: any(job.id in work for work in supervisor.works))
    return job


async def ended(service, job, timeout_s=30):
    job = await service.wait(job.id, timeout_s)
    assert job.is_over
    return job


async def stopped(service, job):
    await service.cancel(job.id)
    return await ended(service, job)


def test_a_small_job_ends_while_a_long_one_runs(place, until):
    async def scenario():
        supervisor = ScriptedSupervisor(can_interleave=True)
        async with place.running(supervisor) as service:
            long = await long_job(service, supervisor, until)
            small = await service.submit(a_job(2))
            assert small.status == "queued"
            assert service.wait_s(small.id) in (None, 0.0)  # it may run by now
            small = await ended(service, small)
            assert (small.status, small.attempts, small.paused_s) == ("completed", 1, 0.0)
            assert (await service.get(long.id)).status == "in_progress"
            assert supervisor.interjected == [[small.id]]
            assert (await stopped(service, long)).status == "cancelled"
        assert place.output_names == [small.outputs[0].file]

    asyncio.run(scenario())


def test_both_records_tell_their_own_times(place, until):
    async def scenario():
        supervisor = ScriptedSupervisor(can_interleave=True)
        async with place.running(supervisor) as service:
            long = await long_job(service, supervisor, until, steps=200)
            small = await ended(service, await service.submit(a_job(2, settings={"steps": 4, "step_s": 0.1})))
            long = await ended(service, long)
        assert [job.status for job in (small, long)] == ["completed", "completed"]
        assert small.created_at < small.started_at < small.completed_at < long.completed_at
        # The steps take 0.4 s; the pause is counted between messages of the same run, a little later than it begins.
        assert 0.3 < long.paused_s < long.completed_at - long.started_at

    asyncio.run(scenario())


def test_what_is_not_small_waits(place, until):
    async def scenario():
        supervisor = ScriptedSupervisor(can_interleave=True)
        async with place.running(supervisor) as service:
            long = await long_job(service, supervisor, until, steps=100)
            large = await service.submit(a_job(2, settings={"steps": 30}))
            jobs = [await ended(service, job) for job in (large, long)]
        assert [job.status for job in jobs] == ["completed", "completed"]
        assert supervisor.works == [[long.id], [large.id]]
        assert supervisor.interjected == []

    asyncio.run(scenario())


@pytest.mark.parametrize(("can", "is_wanted"), [(False, True), (True, False)], ids=["the engine can not", "not wanted"])
def test_one_after_the_other(can, is_wanted, place, until):
    async def scenario():
        supervisor = ScriptedSupervisor(can_interleave=can)
        async with place.running(supervisor, is_interleaving=is_wanted) as service:
            long = await long_job(service, supervisor, until, steps=50)
            small = await service.submit(a_job(2))
            jobs = [await ended(service, job) for job in (small, long)]
        assert [job.status for job in jobs] == ["completed", "completed"]
        assert supervisor.works == [[long.id], [small.id]]
        assert supervisor.interjected == []

    asyncio.run(scenario())


def test_compatible_small_jobs_run_together_in_the_middle(place, until):
    async def scenario():
        supervisor = ScriptedSupervisor(can_interleave=True)
        async with place.running(supervisor, max_batch=4) as service:
            long = await long_job(service, supervisor, until)
            first = await service.submit(a_job(2, settings={"steps": 30, "step_s": 0.01}))
            await until(lambda: supervisor.interjected)
            smalls = [await service.submit(a_job(number)) for number in (3, 4, 5)]
            assert {(await ended(service, job)).status for job in (first, *smalls)} == {"completed"}
            assert supervisor.interjected == [[first.id], [job.id for job in smalls]]
            await stopped(service, long)

    asyncio.run(scenario())


async def run_beside(place, until, *, steps=100, outcome, **options):
    """Run a small job of some outcome in the middle of a long one; return the supervisor and both, the small first."""
    supervisor = ScriptedSupervisor(can_interleave=True)
    async with place.running(supervisor, **options) as service:
        long = await long_job(service, supervisor, until, steps=steps)
        small = await service.submit(a_job(2, settings={"outcome": outcome}))
        return supervisor, [await ended(service, job) for job in (small, long)]


def test_what_does_not_fit_beside_another_runs_alone(place, until):
    async def scenario():
        supervisor, jobs = await run_beside(place, until, outcome="too_large_beside")
        small, long = jobs
        assert [(job.status, job.attempts) for job in jobs] == [("completed", 1), ("completed", 1)]
        assert supervisor.interjected == [[small.id]]
        assert supervisor.works == [[long.id], [small.id], [small.id]]

    asyncio.run(scenario())


def test_what_was_lost_in_the_middle_is_tried_again_alone(place, until):
    async def scenario():
        supervisor, jobs = await run_beside(place, until, outcome="lost_once")
        assert [(job.status, job.attempts) for job in jobs] == [("completed", 2), ("completed", 1)]
        assert supervisor.interjected == [[jobs[0].id]]

    asyncio.run(scenario())


@pytest.mark.parametrize("outcome", ["failed", "empty", "raises"])
def test_a_failure_in_the_middle_is_nobody_elses(outcome, place, until):
    async def scenario():
        _, jobs = await run_beside(place, until, steps=200, outcome=outcome, max_attempts=1)
        assert [job.status for job in jobs] == ["failed", "completed"]

    asyncio.run(scenario())


def test_either_is_cancelled_alone(place, until):
    async def scenario():
        supervisor = ScriptedSupervisor(can_interleave=True)
        async with place.running(supervisor) as service:
            long = await long_job(service, supervisor, until)
            small = await service.submit(a_job(2, settings={"steps": 1000, "step_s": 0.01}))
            await until(lambda: supervisor.interjected)
            assert (await stopped(service, small)).status == "cancelled"
            assert (await service.get(long.id)).status == "in_progress"
            small = await service.submit(a_job(3, settings={"steps": 20, "step_s": 0.02}))
            await until(lambda: len(supervisor.interjected) == 2)
            await service.cancel(long.id)
            jobs = [await ended(service, job) for job in (small, long)]
        assert [job.status for job in jobs] == ["completed", "cancelled"]

    asyncio.run(scenario())


def test_a_stream_of_small_jobs_leaves_half_of_the_time(place, until):
    async def scenario():
        supervisor = ScriptedSupervisor(can_interleave=True)
        async with place.running(supervisor, store="memory") as service:
            long = await long_job(service, supervisor, until, steps=300)
            smalls = [await service.submit(a_job(n, settings={"step_s": 0.01})) for n in range(2, 60)]
            long = await ended(service, long)
            for job in smalls:
                assert (await ended(service, job)).status == "completed"
        assert len(supervisor.interjected) > 2
        # The last one may have come at the very end, without a pause after it.
        assert long.paused_s <= 0.5 * (long.completed_at - long.started_at) + 0.5

    asyncio.run(scenario())


def test_both_go_back_into_the_queue_when_the_server_stops(place, until):
    async def scenario():
        supervisor = ScriptedSupervisor(can_interleave=True)
        async with place.running(supervisor, grace_s=0) as service:
            long = await long_job(service, supervisor, until)
            small = await service.submit(a_job(2, settings={"steps": 1000, "step_s": 0.01}))
            await until(lambda: supervisor.interjected)
        async with place.running(ScriptedSupervisor("starting")) as service:
            jobs = [await service.get(job.id) for job in (long, small)]
        assert [(job.status, job.attempts) for job in jobs] == [("queued", 0), ("queued", 0)]

    asyncio.run(scenario())


def test_a_full_disk_in_the_middle_leaves_the_small_job_in_the_queue(place, until, monkeypatch):
    from sglang_core import OutputError
    from sglang_core.jobs.files import JobFiles

    async def scenario():
        supervisor = ScriptedSupervisor(can_interleave=True)
        async with place.running(supervisor) as service:
            long = await long_job(service, supervisor, until, steps=2000, step_s=0.005)
            make, calls = JobFiles.make_work_folder, []

            def refuse_once(self):
                calls.append(self)
                if len(calls) == 1:
                    raise OutputError("the disk is full", "free some space")
                return make(self)

            monkeypatch.setattr(JobFiles, "make_work_folder", refuse_once)
            small = await ended(service, await service.submit(a_job(2)))
            assert (small.status, len(calls)) == ("completed", 2)
            assert (await service.get(long.id)).status == "in_progress"
            await stopped(service, long)

    asyncio.run(scenario())
