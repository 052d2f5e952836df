"""Telling real rank processes what requests will ask for, between two works."""

import asyncio

import pytest

from sglang_core import ModelLoadError, RequestError


def test_ranks_are_told_between_two_works(supervised, item):
    async def body(supervisor, run):
        running = asyncio.create_task(run(item("a", "a circle pause=0.05", num_inference_steps=4)))
        await asyncio.sleep(0)
        told = asyncio.create_task(supervisor.follow({}))
        (result,) = await running
        was_done = told.done()
        await told
        return result, was_done, (await run(item("b")))[0]

    result, was_done, after = supervised(body)

    assert result.error is None
    assert not was_done
    assert after.error is None


def test_what_can_not_be_followed_is_told_and_the_ranks_go_on(supervised, item):
    async def body(supervisor, run):
        with pytest.raises(RequestError, match="precision cannot change between requests"):
            await supervisor.follow({"precision": "fp32"})
        return supervisor.num_restarts, (await run(item("a")))[0]

    restarts, result = supervised(body)

    assert restarts == 0
    assert result.error is None


def test_ranks_that_are_gone_can_not_be_told(supervised):
    async def body(supervisor, run):
        await supervisor.stop(5.0)
        with pytest.raises(ModelLoadError):
            await supervisor.follow({})

    supervised(body)


def test_end_of_the_ranks_is_the_answer(supervised, item):
    async def body(supervisor, run):
        told = asyncio.create_task(supervisor.follow({}))
        await asyncio.sleep(0)  # it is its turn, and the message is on its way
        await supervisor._life.kill()
        answer = (await asyncio.gather(told, return_exceptions=True))[0]
        while not supervisor.num_restarts:  # noqa: ASYNC110 - the fixture has a deadline
            await asyncio.sleep(0.01)
        await supervisor.wait_ready()
        await supervisor.follow({})
        return answer

    assert isinstance(supervised(body), ModelLoadError | None)  # the answer may have come before the end
