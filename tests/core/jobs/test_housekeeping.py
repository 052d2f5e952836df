"""Old jobs go, uploads are repeated, stray files are removed, and nobody's own files are touched."""

import asyncio
import os
import time

import pytest
from attrs import evolve
from scripted_supervisor import CONTENT, ScriptedSupervisor, a_job

from sglang_core import JobQuery, OutputError, StoredObject


class Bucket:
    """A storage that can be away."""

    def __init__(self):
        self.objects = {}
        self.is_away = False
        self.facts = []

    def upload(self, item):
        if self.is_away:
            raise OutputError("the bucket is away", "wait")
        key = f"{item.facts['id']}-{item.facts['index']}"
        self.objects[key] = item.path.read_bytes()
        self.facts.append((item.media_type, dict(item.facts)))
        return StoredObject(key=key, url=f"https://bucket.test/{key}")

    def delete(self, key):
        if self.is_away:
            raise OutputError("the bucket is away", "wait")
        self.objects.pop(key, None)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("sglang_core.jobs.sweeping.TICK_S", 0.02)
    monkeypatch.setattr("sglang_core.jobs.sweeping._FIRST_UPLOAD_RETRY_S", 0.02)


async def finished(service, number, **values):
    return await service.wait((await service.submit(a_job(number, **values))).id)


def test_outputs_are_uploaded_and_not_kept_here(place):
    async def scenario():
        bucket = Bucket()
        async with place.running(storage=bucket) as service:
            job = await finished(service, 1, settings={"num_outputs": 2})
            assert [(out.file, out.url, out.upload_error) for out in job.outputs] == [
                (None, f"https://bucket.test/{job.id}-{i}", None) for i in (0, 1)
            ]
            assert service.content_path(job, 0) is None
            assert bucket.objects == {f"{job.id}-0": CONTENT, f"{job.id}-1": CONTENT}
            assert bucket.facts[0][0] == "image/png"
            assert bucket.facts[0][1]["date"] == "1970-01-01"
            await service.delete(job.id)
            assert bucket.objects == {}
        assert place.output_names == []

    asyncio.run(scenario())


def test_a_lost_bucket_keeps_the_file_and_the_upload_is_made_up_for(place, until):
    async def scenario():
        bucket = Bucket()
        bucket.is_away = True
        async with place.running(storage=bucket) as service:
            job = await finished(service, 1)
            assert (job.status, job.outputs[0].upload_error) == ("completed", "the bucket is away")
            assert service.content_path(job, 0).read_bytes() == CONTENT
            assert service.statistics().waiting_uploads == 1
        bucket.is_away = False
        async with place.running(storage=bucket) as service:  # a restart remembers
            await until(lambda: bucket.objects and not place.output_names)
            await until(lambda: not service.statistics().waiting_uploads)
            output = (await service.get(job.id)).outputs[0]
            assert (output.file, output.upload_error) == (None, None)
            assert output.url == f"https://bucket.test/{job.id}-0"

    asyncio.run(scenario())


def test_a_job_whose_object_can_not_be_deleted_stays_and_can_be_deleted_later(place):
    async def scenario():
        bucket = Bucket()
        async with place.running(storage=bucket) as service:
            job = await finished(service, 1)
            bucket.is_away = True
            with pytest.raises(OutputError, match="the bucket is away"):
                await service.delete(job.id)
            assert await service.get(job.id) == job
            bucket.is_away = False
            await service.delete(job.id)
            assert (await service.get(job.id), bucket.objects) == (None, {})

    asyncio.run(scenario())


def test_a_job_cancelled_during_its_upload_leaves_nothing(place, until):
    import threading

    class Slow(Bucket):
        may_go_on = threading.Event()
        has_begun = threading.Event()

        def upload(self, item):
            self.has_begun.set()
            self.may_go_on.wait(60)
            return super().upload(item)

    async def scenario():
        bucket = Slow()
        async with place.running(storage=bucket) as service:
            job = await service.submit(a_job(1))
            await until(bucket.has_begun.is_set)
            running = await service.get(job.id)
            assert (running.status, running.stage) == ("in_progress", "upload")
            await service.cancel(job.id)
            bucket.may_go_on.set()
            assert (await service.wait(job.id)).status == "cancelled"
            await until(lambda: not bucket.objects and not place.output_names)

    asyncio.run(scenario())


def test_the_oldest_go_when_the_rest_takes_too_much_room(place, until):
    async def scenario():
        limit = f"{2 * len(CONTENT)}"
        async with place.running(job_retention_bytes=limit) as service:
            jobs = [await finished(service, i) for i in range(4)]
            await until(lambda: len(service._housekeeper._finished) == 2)
            assert place.output_names == [f"{job.id}.png" for job in jobs[2:]]
            kept = await service.list(JobQuery(order="asc"))
            assert [job.id for job in kept] == [job.id for job in jobs[2:]]

    asyncio.run(scenario())


def test_the_expired_go_and_a_promise_is_kept(place, until):
    async def scenario():
        async with place.running(job_retention="1h") as service:
            promised = await finished(service, 1)
        async with place.running(job_retention="1s") as service:
            brief = await finished(service, 2)
            await until(lambda: brief.id not in service._housekeeper._finished)
            assert time.time() > brief.expires_at
            assert place.output_names == [f"{promised.id}.png"]
            assert [job.id for job in await service.list(JobQuery())] == [promised.id]

    asyncio.run(scenario())


def test_stray_files_go_and_others_stay(place, until):
    old = time.time() - 10

    def leave(folder, name):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
        os.utime(path, (old, old))

    async def scenario():
        async with place.running() as service:
            job = await finished(service, 1)
            failed = await finished(service, 2, settings={"outcome": "failed"})
        unknown = a_job(77).id
        for name in (f"{job.id}_3.png", f"{failed.id}.png", f"{unknown}.png", "mine.png", f"{job.id}_0.thumbnail.webp"):
            leave(place.outputs, name)
        leave(place.outputs / ".sglang-work-00", "lock")
        leave(place.outputs / ".sglang-work-00", ".0123456789abcdef.part.png")
        for name in (f"{unknown}_0.png", f"{job.id}_0.png", "mine.png"):
            leave(place.inputs, name)
        (place.inputs / f"{a_job(78).id}_0.png").write_bytes(b"an upload that arrives")
        os.utime(place.inputs / f"{a_job(78).id}_0.png", (time.time() + 60, time.time() + 60))
        async with place.running() as service:
            await until(lambda: f"{job.id}_3.png" not in place.output_names)
            await until(lambda: not (place.inputs / f"{unknown}_0.png").exists())
            assert service.content_path(job, 0) is not None
        kept = [f"{job.id}.png", f"{job.id}_0.thumbnail.webp", f"{unknown}.png", "mine.png"]
        assert place.output_names == sorted(kept)
        assert not list(place.outputs.glob(".sglang-work-*"))
        names = {path.name for path in place.inputs.iterdir()}
        assert names == {"mine.png", f"{a_job(78).id}_0.png", ".sglang-jobs"}

    asyncio.run(scenario())


def test_uploads_of_another_server_s_jobs_are_left_alone(place, until):
    (place.inputs / ".sglang-jobs").write_text("another store")
    upload = place.inputs / f"{a_job(77).id}_0.png"
    upload.write_bytes(b"x")
    os.utime(upload, (1, 1))

    async def scenario():
        async with place.running() as service:
            await until(lambda: service._housekeeper._next_sweep_at)
        assert upload.exists()

    asyncio.run(scenario())


def test_work_of_a_server_that_lives_is_left_alone(place):
    async def scenario():
        async with place.running() as first:
            folder = first._files.make_work_folder()
            other = place.service(store="memory")
            await other.start()
            await other.stop(0)
            assert folder.is_dir()

    asyncio.run(scenario())


def test_what_can_not_be_removed_keeps_its_record(place, monkeypatch):
    async def scenario():
        async with place.running() as service:
            job = await finished(service, 1)

            def refuse(*_, **__):
                raise PermissionError(13, "Permission denied")

            with monkeypatch.context() as patched:
                patched.setattr("pathlib.Path.unlink", refuse)
                with pytest.raises(OutputError) as refused:
                    await service.delete(job.id)
            assert f"{job.id}.png': Permission denied" in refused.value.problem
            assert await service.get(job.id) == job
            await service.delete(job.id)

    asyncio.run(scenario())


def test_a_restarted_upload_does_not_run_the_job_again(place, until):
    async def scenario():
        supervisor = ScriptedSupervisor()
        async with place.running(supervisor) as service:
            job = await finished(service, 1)
        from sglang_plugins_builtin.sqlite_jobs.stores import SqliteJobStore

        store = SqliteJobStore().open(place.store)
        second = evolve(a_job(2), status="in_progress", attempts=1, outputs=job.outputs)
        store.create(a_job(2))
        store.change(second.id, lambda _: second)
        store.close()
        bucket = Bucket()
        async with place.running(ScriptedSupervisor("starting"), storage=bucket) as service:
            ended = await service.wait(second.id)
            assert ended.status == "completed"
            assert list(bucket.objects) == [f"{second.id}-0"]

    asyncio.run(scenario())
