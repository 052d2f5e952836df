"""Who is told what of a job."""

import asyncio

import pytest

from sglang_core.jobs.events import EventHub, JobEvent
from sglang_core.jobs.records import Job


@pytest.fixture
def job():
    return Job(id="img_1", kind="image", operation="images.generations", created_at=1.0, settings={}, api={})


def test_who_waits_for_the_end_is_told_nothing_else(job):
    async def scenario():
        hub = EventHub()
        with hub.end("img_1") as end:
            hub.publish(JobEvent(kind="started", job=job))
            hub.publish(JobEvent(kind="progress", job=job))
            await asyncio.sleep(0)
            assert not end.done()
            assert not hub.is_followed("img_1")
            hub.publish(JobEvent(kind="finished", job=job))
            assert await end is job

    asyncio.run(scenario())


def test_the_end_comes_to_all_who_wait_and_not_to_who_gave_up(job):
    async def scenario():
        hub = EventHub()
        with hub.end("img_1") as first, hub.end("img_1") as second, hub.end("img_2") as other:
            first.cancel()
            hub.publish(JobEvent(kind="finished", job=job))
            assert await second is job
            assert not other.done()

    asyncio.run(scenario())


@pytest.mark.parametrize("is_closed_before", [True, False])
def test_a_server_that_stops_ends_the_wait(is_closed_before):
    async def scenario():
        hub = EventHub()
        if is_closed_before:
            hub.close()
        with hub.end("img_1") as end:
            hub.close()
            assert await end is None

    asyncio.run(scenario())


def test_a_job_is_followed_while_somebody_has_a_mailbox_or_listens_to_all(job):
    async def scenario():
        hub = EventHub()
        with hub.mailbox("img_1"):
            assert hub.is_followed("img_1")
            assert not hub.is_followed("img_2")
        assert not hub.is_followed("img_1")
        hub.listeners.append(lambda _: None)
        assert hub.is_followed("img_2")

    asyncio.run(scenario())
