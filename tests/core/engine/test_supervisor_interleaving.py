"""A work in the middle of another, on real rank processes: neither harms the other, whatever becomes of it."""

import asyncio
import os
import signal

import pytest

LONG = {"prompt": "pause=0.02", "num_inference_steps": 20_000}


@pytest.fixture(autouse=True)
def _interleaving_ranks(monkeypatch):
    monkeypatch.setenv("RANK_INTERLEAVES", "1")


class Began:
    """Takes the events of a run in; ``step`` is set when one of its steps is done."""

    def __init__(self):
        self.step = asyncio.Event()
        self.events = []

    def __call__(self, event):
        self.events.append(event)
        if event.stage == "denoise" and event.index:
            self.step.set()


async def begin(run, item, **settings):
    """Begin a work that takes long; return its task when its first step is done."""
    began = Began()
    task = asyncio.create_task(run(item("long", **{**LONG, **settings}), tell=began))
    await began.step.wait()
    return task, began


def test_small_work_ends_while_the_long_one_runs_and_both_are_as_alone(supervised, item):
    events = []

    async def body(supervisor, run):
        assert supervisor.can_interleave
        alone = [(await run(item("small", seed=3)))[0], (await run(item("long", "x pause=0.01", seed=4)))[0]]
        pictures = [(supervised.folder / f"{name}.png").read_bytes() for name in ("small", "long")]
        long, began = await begin(run, item)
        (small,) = await run(item("small", seed=3), tell=events.append, is_interjected=True)
        assert not long.done()
        again = (supervised.folder / "small.png").read_bytes()
        supervisor.cancel("long")
        await long
        began = Began()
        long = asyncio.create_task(
            run(item("long", "x pause=0.01", seed=4, num_inference_steps=4, num_previews=2), tell=began)
        )
        await began.step.wait()
        await run(item("other", "pause=0.1", num_inference_steps=3), is_interjected=True)
        return alone, pictures, small, again, (await long)[0], began

    alone, pictures, small, again, long, began = supervised(body)

    assert (again, small.outputs) == (pictures[0], alone[0].outputs)
    assert {event.id for event in events} == {"small"}
    assert [event.index for event in events if event.stage == "denoise"] == [0, 1, 2, 3, 4]
    assert small.paused_s == 0.0
    assert (supervised.folder / "long.png").read_bytes() == pictures[1]
    assert long.outputs == alone[1].outputs
    assert {event.id for event in began.events} == {"long"}


def test_time_in_the_middle_is_not_that_of_the_run_around_it(supervised, item):
    async def body(supervisor, run):
        long, _ = await begin(run, item, num_inference_steps=40)
        (small,) = await run(item("small", "pause=0.5", num_inference_steps=4), is_interjected=True)
        return (await long)[0], small

    long, small = supervised(body)

    assert small.timings_s["denoise"] >= 2.0
    assert long.paused_s >= small.timings_s["denoise"]
    assert len(long.outputs) == 1


@pytest.mark.parametrize("prompt", ["fail", "refuse", "starve-beside"])
def test_failure_in_the_middle_is_nobody_elses(prompt, supervised, item):
    async def body(supervisor, run):
        long, _ = await begin(run, item, num_inference_steps=30)
        (failed,) = await run(item("small", prompt), is_interjected=True)
        (wrong,) = await run(item("wrong", width=17), is_interjected=True)
        (after,) = await run(item("after"), is_interjected=True)
        return failed, wrong, after, (await long)[0]

    failed, wrong, after, long = supervised(body)

    codes = {"fail": "failed", "refuse": "invalid_request", "starve-beside": "out_of_memory"}
    assert (failed.error.code, failed.is_lost, wrong.error.code) == (codes[prompt], False, "invalid_request")
    assert (len(after.outputs), len(long.outputs)) == (1, 1)


def test_either_is_cancelled_alone(supervised, item):
    async def body(supervisor, run):
        long, _ = await begin(run, item)
        inner = Began()
        small = asyncio.create_task(run(item("small", **LONG), tell=inner, is_interjected=True))
        await inner.step.wait()
        supervisor.cancel("small")
        (cancelled,) = await small
        assert not long.done()
        inner = Began()
        small = asyncio.create_task(
            run(item("second", "pause=0.02", num_inference_steps=10), tell=inner, is_interjected=True)
        )
        await inner.step.wait()
        supervisor.cancel("long")
        return cancelled, (await small)[0], (await long)[0]

    cancelled, second, long = supervised(body)

    assert (cancelled.is_cancelled, cancelled.outputs) == (True, ())
    assert (second.is_cancelled, len(second.outputs)) == (False, 1)
    assert (long.is_cancelled, long.outputs) == (True, ())


def test_work_that_comes_when_the_other_has_just_ended_runs_all_the_same(supervised, item):
    async def body(supervisor, run):
        (idle,) = await run(item("idle"), is_interjected=True)
        for number in range(10):
            task = asyncio.create_task(run(item(f"outer{number}", num_inference_steps=1)))
            for _ in range(number):
                await asyncio.sleep(0.002)
            (inner,) = await run(item(f"inner{number}"), is_interjected=True)
            assert (len(inner.outputs), len((await task)[0].outputs)) == (1, 1)
        return idle

    assert len(supervised(body).outputs) == 1


def test_crash_in_the_middle_loses_both_and_what_had_not_begun_is_told_so(supervised, item):
    async def body(supervisor, run):
        long, _ = await begin(run, item)
        (dead,) = await run(item("small", "die"), is_interjected=True)
        lost = (await long)[0]
        await supervisor.wait_ready()
        long = asyncio.create_task(run(item("long", "pause=600")))  # no boundary comes
        while supervisor._run is None or not supervisor._run.seen:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
        waiting = asyncio.create_task(run(item("waiting"), is_interjected=True))
        await asyncio.sleep(0)
        os.kill(supervisor._life.ranks.pids[0], signal.SIGKILL)
        return dead, lost, (await waiting)[0], (await long)[0]

    dead, lost, waiting, killed = supervised(body)

    assert (dead.is_lost, dead.has_begun, dead.error.code) == (True, True, "crashed")
    assert (lost.is_lost, lost.has_begun, lost.error.code) == (True, True, "crashed")
    assert (waiting.is_lost, waiting.has_begun) == (True, False)
    assert (killed.is_lost, killed.has_begun) == (True, True)


def test_hang_in_the_middle_is_noticed(supervised, item):
    async def body(supervisor, run):
        long, _ = await begin(run, item)
        (hung,) = await run(item("small", "hang"), is_interjected=True)
        return hung, (await long)[0]

    hung, long = supervised(body, step_timeout_s=1.5)

    assert (hung.error.code, long.error.code) == ("hung", "hung")


def test_pipeline_that_can_not_is_left_alone(supervised, item, monkeypatch):
    monkeypatch.delenv("RANK_INTERLEAVES")

    async def body(supervisor, run):
        assert not supervisor.can_interleave
        long, _ = await begin(run, item, num_inference_steps=20)
        (small,) = await run(item("small"), is_interjected=True)
        assert long.done()
        return small, (await long)[0]

    small, long = supervised(body)

    assert (len(small.outputs), len(long.outputs), long.paused_s) == (1, 1, 0.0)
