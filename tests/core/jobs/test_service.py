"""Jobs are on record before they are acknowledged, run in turn, and end once."""

import asyncio
import sqlite3
from contextvars import ContextVar

import pytest
from attrs import evolve
from scripted_supervisor import CONTENT, ScriptedSupervisor, a_job, an_output

from sglang_core import ConflictError, JobQuery, RequestError, StoredObject
from sglang_core.engine.request_scheduler import QueueFullError


def test_a_job_runs_and_its_record_says_what_became_of_it(place):
    async def scenario():
        async with place.running(job_retention="1h") as service:
            seen = []
            service.listeners.append(lambda job: seen.append((job.id, job.status)))
            accepted = await service.submit(a_job(1))
            job = await service.wait(accepted.id)
            assert (accepted.status, job.status, job.progress, job.attempts) == ("queued", "completed", 1.0, 1)
            assert job.outputs[0].file == f"{job.id}.png"
            assert job.outputs[0].num_bytes == len(CONTENT)
            assert job.expires_at == job.completed_at + 3600
            assert (job.timings_s, job.peak_memory_bytes) == ({"denoise": 0.5}, 1000)
            assert service.content_path(job, 0).read_bytes() == CONTENT
            assert await service.get(job.id) == job
            assert seen == [(job.id, "completed")]
            assert service.statistics().totals == {"completed": 1}
        assert place.output_names == [f"{job.id}.png"]

    asyncio.run(scenario())


def test_several_outputs_get_numbers(place):
    async def scenario():
        async with place.running() as service:
            job = await service.wait((await service.submit(a_job(1, settings={"num_outputs": 2}))).id)
        assert [output.file for output in job.outputs] == [f"{job.id}_0.png", f"{job.id}_1.png"]
        assert place.output_names == [f"{job.id}_0.png", f"{job.id}_1.png"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("outcome", "code", "attempts"),
    [("failed", "out_of_memory", 1), ("lost", "crashed", 2), ("empty", "failed", 1), ("raises", "crashed", 2)],
)
def test_a_job_that_fails_says_why_and_leaves_no_file(outcome, code, attempts, place):
    async def scenario():
        async with place.running() as service:
            job = await service.wait((await service.submit(a_job(1, settings={"outcome": outcome}))).id)
            other = await service.wait((await service.submit(a_job(2))).id)
        assert (job.status, job.error.code, job.attempts, job.outputs) == ("failed", code, attempts, ())
        assert job.error.message
        assert other.status == "completed"
        assert place.output_names == [other.outputs[0].file]

    asyncio.run(scenario())


def test_a_lost_run_is_repeated_or_failed_by_choice(place):
    async def scenario():
        async with place.running() as service:
            job = await service.wait((await service.submit(a_job(1, settings={"outcome": "lost_once"}))).id)
            assert (job.status, job.attempts) == ("completed", 2)
        async with place.running(on_interrupted="fail") as service:
            job = await service.wait((await service.submit(a_job(2, settings={"outcome": "lost_once"}))).id)
            assert (job.status, job.error.code, job.attempts) == ("failed", "crashed", 1)

    asyncio.run(scenario())


def test_what_can_not_be_served_is_refused_and_not_kept(place):
    async def scenario():
        async with place.running() as service:
            with pytest.raises(RequestError, match="this model makes no such thing"):
                await service.submit(a_job(1, settings={"prompt": "impossible"}))
            assert await service.list(JobQuery()) == []

    asyncio.run(scenario())


def test_a_full_queue_refuses_and_keeps_nothing(place):
    async def scenario():
        supervisor = ScriptedSupervisor("starting")
        async with place.running(supervisor, max_queue=1) as service:
            await service.submit(a_job(1))
            with pytest.raises(QueueFullError) as refused:
                await service.submit(a_job(2))
            assert refused.value.retry_after_s >= 1
            assert await service.get(a_job(2).id) is None
            supervisor.enter("ready")
            assert (await service.wait(a_job(1).id)).status == "completed"

    asyncio.run(scenario())


def test_an_idempotency_key_gives_the_job_of_before_also_when_the_queue_is_full(place):
    async def scenario():
        async with place.running(ScriptedSupervisor("starting"), max_queue=1) as service:
            keyed = {"idempotency_key": "k", "owner": "ana"}
            first = await service.submit(a_job(1, request_digest="a", **keyed))
            again = await service.submit(a_job(2, request_digest="a", **keyed))
            assert again == first
            with pytest.raises(ConflictError) as refused:
                await service.submit(a_job(3, request_digest="b", **keyed))
            assert f"'k' was used before for another request ({first.id})" in refused.value.problem
            assert refused.value.remedy == "use a new key for a new request"
            assert len(await service.list(JobQuery())) == 1

    asyncio.run(scenario())


def test_many_at_once_with_one_key_make_one_job(place):
    async def scenario():
        async with place.running(ScriptedSupervisor("starting")) as service:
            jobs = [a_job(i, idempotency_key="k") for i in range(20)]
            kept = await asyncio.gather(*(service.submit(job) for job in jobs))
            assert len({job.id for job in kept}) == 1
            assert service.statistics().queued == 1
            assert service.queue_position(kept[0].id) == 0

    asyncio.run(scenario())


def test_a_queued_job_is_cancelled_at_once(place):
    async def scenario():
        supervisor = ScriptedSupervisor("starting")
        async with place.running(supervisor) as service:
            job = await service.submit(a_job(1))
            cancelled = await service.cancel(job.id)
            assert cancelled.status == "cancelled"
            assert await service.cancel(job.id) == cancelled
            supervisor.enter("ready")
            await service.wait((await service.submit(a_job(2))).id)
            assert supervisor.works == [[a_job(2).id]]
            assert await service.cancel("nobody") is None

    asyncio.run(scenario())


def test_a_running_job_is_cancelled_within_a_step(place, until):
    async def scenario():
        supervisor = ScriptedSupervisor()
        async with place.running(supervisor) as service:
            job = await service.submit(a_job(1, settings={"steps": 10_000, "step_s": 0.01}))
            await until(lambda: supervisor.works)
            cancelling = await service.cancel(job.id)
            assert cancelling.status == "cancelling"
            job = await service.wait(job.id, 60)
            assert (job.status, job.outputs) == ("cancelled", ())
            assert job.progress < 0.9
        assert place.output_names == []

    asyncio.run(scenario())


def test_a_cancel_in_the_moment_a_run_begins_is_heard(place):
    async def scenario():
        supervisor = ScriptedSupervisor()
        async with place.running(supervisor) as service:
            for i in range(20):
                job = await service.submit(a_job(i, settings={"steps": 10_000, "step_s": 0.01}))
                for _ in range(i):
                    await asyncio.sleep(0.0005)
                await service.cancel(job.id)
                assert (await service.wait(job.id, 60)).status == "cancelled"

    asyncio.run(scenario())


def test_deleting_removes_the_record_and_every_file(place, until):
    async def scenario():
        supervisor = ScriptedSupervisor()
        async with place.running(supervisor) as service:
            (place.inputs / "image_1.png").write_bytes(b"1")
            (place.outputs / "holiday.png").write_bytes(b"mine")
            done = await service.wait((await service.submit(a_job(1, input_files=("image_1.png",)))).id)
            (place.outputs / f"{done.id}_0.thumbnail.webp").write_bytes(b"2")
            running = await service.submit(a_job(2, settings={"steps": 1000, "step_s": 0.01}))
            await until(lambda: len(supervisor.works) == 2)
            assert (await service.delete(done.id)).id == done.id
            assert (await service.delete(running.id)).status == "cancelled"
            assert await service.delete(done.id) is None
            assert await service.list(JobQuery()) == []
        assert place.output_names == ["holiday.png"]
        assert list(place.inputs.glob("image*")) == []

    asyncio.run(scenario())


def test_a_job_belongs_to_its_owner(place):
    async def scenario():
        async with place.running() as service:
            job = await service.submit(a_job(1, owner="ana"))
            assert await service.get(job.id, owner="bob") is None
            assert (await service.get(job.id, owner="ana")).id == job.id
            assert (await service.get(job.id)).id == job.id

    asyncio.run(scenario())


def test_events_tell_the_life_of_a_job(place):
    async def scenario():
        supervisor = ScriptedSupervisor("starting")
        async with place.running(supervisor) as service:
            job = await service.submit(a_job(1, settings={"steps": 3, "step_s": 0.02, "previews": True}))
            events = []
            async for event in service.events(job.id):
                events.append(event)
                supervisor.enter("ready")
            kinds = [event.kind for event in events]
            assert kinds[0] == "queued"
            assert (events[0].queue_position, kinds[-1]) == (0, "finished")
            assert "started" in kinds
            previews = [event for event in events if event.kind == "preview"]
            assert (previews[-1].stage, previews[-1].index, previews[-1].total) == ("denoise", 3, 3)
            assert previews[-1].preview_png == b"png"
            progress = [event.job.progress for event in events]
            assert progress == sorted(progress)
            assert events[-1].job.status == "completed"
            assert [event.kind async for event in service.events(job.id)] == ["finished"]
            with pytest.raises(RequestError, match="there is no job 'nobody'"):
                await anext(service.events("nobody"))

    asyncio.run(scenario())


def test_who_waits_hears_of_a_better_place(place, monkeypatch):
    monkeypatch.setattr("sglang_core.jobs.queueing._TELL_POSITIONS_S", 0.01)

    async def scenario():
        async with place.running(ScriptedSupervisor("starting")) as service:
            for i in (1, 2):
                await service.submit(a_job(i))
            events = service.events(a_job(2).id)
            assert (await anext(events)).queue_position == 1
            await service.cancel(a_job(1).id)
            assert (await asyncio.wait_for(anext(events), 60)).queue_position == 0
            await events.aclose()

    asyncio.run(scenario())


def test_a_listener_that_lags_misses_progress_only(place):
    async def scenario():
        async with place.running() as service:
            job = await service.submit(a_job(1, settings={"steps": 200}))
            events = service.events(job.id)
            first = await anext(events)
            await service.wait(job.id)
            rest = [event.kind async for event in events]
            assert first.kind in {"queued", "started"}
            assert len(rest) <= 4
            assert rest[-1] == "finished"

    asyncio.run(scenario())


def test_waiting_gives_up_after_its_time(place):
    async def scenario():
        async with place.running(ScriptedSupervisor("starting")) as service:
            job = await service.submit(a_job(1))
            assert (await service.wait(job.id, 0.05)).status == "queued"

    asyncio.run(scenario())


def test_a_client_that_hangs_up_loses_no_job(place):
    async def scenario():
        async with place.running() as service:
            for i in range(30):
                submission = asyncio.ensure_future(service.submit(a_job(i)))
                for _ in range(i):
                    await asyncio.sleep(0)
                submission.cancel()
                await asyncio.gather(submission, return_exceptions=True)
            await service.submit(a_job(99))
            await service.wait(a_job(99).id)
            jobs = await service.list(JobQuery(limit=100))
            assert {(await service.wait(job.id)).status for job in jobs} == {"completed"}
            assert service.statistics().queued == 0

    asyncio.run(scenario())


def test_compatible_jobs_run_together_and_each_gets_its_own(place):
    async def scenario():
        supervisor = ScriptedSupervisor("starting")
        async with place.running(supervisor, max_batch=4) as service:
            for i in range(3):
                await service.submit(a_job(i, settings={"outcome": "failed"} if i == 1 else {}))
            supervisor.enter("ready")
            jobs = [await service.wait(a_job(i).id) for i in range(3)]
            assert [job.status for job in jobs] == ["completed", "failed", "completed"]
            assert supervisor.works == [[job.id for job in jobs]]

    asyncio.run(scenario())


def test_a_batch_that_kills_the_engine_is_repeated_one_by_one(place):
    async def scenario():
        supervisor = ScriptedSupervisor("starting")
        async with place.running(supervisor, max_batch=4) as service:
            for i in range(3):
                await service.submit(a_job(i, settings={"outcome": "lost" if i == 1 else "lost_once"}))
            supervisor.enter("ready")
            jobs = [await service.wait(a_job(i).id) for i in range(3)]
            assert [job.status for job in jobs] == ["completed", "failed", "completed"]
            assert [len(work) for work in supervisor.works] == [3, 1, 1, 1]

    asyncio.run(scenario())


def test_files_that_vanished_or_lie_elsewhere_are_not_content(place, tmp_path):
    async def scenario():
        async with place.running() as service:
            job = await service.wait((await service.submit(a_job(1))).id)
            service.content_path(job, 0).unlink()
            assert service.content_path(job, 0) is None
            assert service.content_path(job, 5) is None
            (tmp_path / "secret").write_text("x")
            (place.outputs / "link.png").symlink_to(tmp_path / "secret")
            for name in ("../secret", "link.png", str(tmp_path / "secret"), "a\0b"):
                assert service.content_path(evolve(job, outputs=(an_output(file=name),)), 0) is None

    asyncio.run(scenario())


def test_progress_is_in_memory_at_once_and_on_record_now_and_then(place, monkeypatch, until):
    monkeypatch.setattr("sglang_core.jobs.dispatching.PROGRESS_INTERVAL_S", 0.05)

    async def scenario():
        supervisor = ScriptedSupervisor()
        async with place.running(supervisor, grace_s=0) as service:
            job = await service.submit(a_job(1, settings={"steps": 1000, "step_s": 0.01}))
            reader = sqlite3.connect(place.store / "jobs.sqlite3")

            def on_record():
                return reader.execute("SELECT json_extract(record, '$.progress') FROM jobs").fetchone()[0]

            await until(lambda: on_record() > 0.02)
            live = await service.get(job.id)
            assert (live.stage, live.status) == ("denoise", "in_progress")
            assert live.progress >= on_record()
            reader.close()

    asyncio.run(scenario())


def test_listeners_are_told_every_event_of_every_job_the_first_in_the_context_of_its_request(place):
    request = ContextVar("request", default="nobody's")
    told = []

    def broken(event):
        raise ValueError("a plugin's own fault")

    async def submit(service, number, outcome):
        request.set(f"request {number}")
        await service.submit(a_job(number, settings={"outcome": outcome, "steps": 1}))

    async def scenario():
        async with place.running() as service:
            service.event_listeners += [broken, lambda event: told.append((event.job.id, event.kind, request.get()))]
            await asyncio.gather(
                *(asyncio.create_task(submit(service, n, kind)) for n, kind in enumerate(("completed", "lost_once")))
            )
            for number in (0, 1):
                assert (await service.wait(a_job(number).id)).status == "completed"

    asyncio.run(scenario())

    for number in (0, 1):
        events = [(kind, whose) for job_id, kind, whose in told if job_id == a_job(number).id]
        assert events[0] == ("queued", f"request {number}")
        run = ["started", "progress"]
        assert [kind for kind, _ in events] == ["queued", *run, *(["queued", *run] if number else []), "finished"]


def test_upload_of_outputs_is_a_stage_of_the_job(place):
    class Bucket:
        def upload(self, item):
            return StoredObject(key=item.path.name, url=f"memory://{item.path.name}")

    events = []

    async def scenario():
        async with place.running(storage=Bucket()) as service:
            service.event_listeners.append(events.append)
            job = await service.submit(a_job(1, settings={"steps": 1, "num_outputs": 2}))
            assert (await service.wait(job.id)).outputs[1].url

    asyncio.run(scenario())

    (upload,) = [event for event in events if event.stage == "upload"]
    assert (upload.kind, upload.job.stage, upload.index, upload.total) == ("progress", "upload", 0, 2)
    assert events.index(upload) == len(events) - 2
