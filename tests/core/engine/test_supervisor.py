"""The supervisor with real rank processes, whose pipeline does what its prompt says."""

import asyncio
import os
import re
import signal
import struct
import subprocess
import sys
import time

import pytest

from sglang_core import ModelLoadError, UnavailableError
from sglang_core.engine.supervisor import Supervisor, choose_launcher
from sglang_core.registry import Availability
from sglang_core.testing import bare_manager


def pid_of(supervisor):
    return supervisor._life.ranks.pids[0]


async def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def test_item_is_run_and_described(supervised, item):
    events = []

    async def body(supervisor, run):
        assert supervisor.state == "ready"
        assert supervisor.plan_json["backend"]["value"] == "wilful"
        return await run(item("image_1", seed=7, width=24, height=16, output_file_name="x.jpeg"), tell=events.append)

    (result,) = supervised(body)

    (output,) = result.outputs
    assert result.error is None
    assert (output.file, output.media_type, output.kind) == ("image_1.jpeg", "image/jpeg", "image")
    assert (output.width, output.height, output.num_frames, output.seed) == (24, 16, 1, 7)
    assert output.num_bytes == (supervised.folder / "image_1.jpeg").stat().st_size
    assert output.receipt["request"]["prompt"] == "a circle"
    assert {"encode", "denoise", "decode", "save"} <= set(result.timings_s)
    assert result.peak_memory_bytes > 2**20
    assert [event.index for event in events if event.stage == "denoise"] == [0, 1, 2, 3, 4]
    assert [event.progress for event in events] == sorted(event.progress for event in events)
    assert os.listdir(supervised.folder) == ["image_1.jpeg"]


def test_several_outputs_of_one_item_are_files_of_their_own(supervised, item):
    async def body(supervisor, run):
        return await run(item("image_1", num_outputs_per_prompt=3, seed=5))

    (result,) = supervised(body)

    assert [(output.index, output.file, output.seed) for output in result.outputs] == [
        (0, "image_1_0.png", 5),
        (1, "image_1_1.png", 6),
        (2, "image_1_2.png", 7),
    ]


FAILURES = {
    "refuse": ("invalid_request", "this is refused", "ask for something else"),
    "fail": ("failed", "backend wilful failed: ValueError: this fails", "use other settings"),
    "starve": ("out_of_memory", "backend wilful failed: MemoryError", ""),
}


def test_failing_requests_fail_alone_in_one_sentence(supervised, item):
    async def body(supervisor, run):
        pid = pid_of(supervisor)
        results = {prompt: (await run(item(prompt, prompt)))[0] for prompt in FAILURES}
        wrong = [
            (await run(item("a", width=17)))[0],
            (await run(item("b", num_frames=9)))[0],
            (await run(item("c", precision="fp32")))[0],
            (await run(item("d", widht=16)))[0],
            (await run(item("e", num_inference_steps="many")))[0],
        ]
        (good,) = await run(item("good"))
        assert pid_of(supervisor) == pid
        return results, wrong, good

    results, wrong, good = supervised(body)

    for prompt, (code, message, remedy) in FAILURES.items():
        error = results[prompt].error
        assert (error.code, error.message) == (code, message)
        assert remedy in error.remedy
        assert not results[prompt].is_lost
    assert {result.error.code for result in wrong} == {"invalid_request"}
    assert [result.error.message.partition(":")[0] for result in wrong] == [
        "this model makes sizes in multiples of 8 pixels, not width 17 and height 16",
        "num_frames does not apply",
        "precision cannot change between requests",
        "unknown setting 'widht'",
        "num_inference_steps",
    ]
    assert wrong[3].error.remedy == "use 'width'"
    assert len(good.outputs) == 1


def test_full_folder_is_an_error_of_the_item(supervised, item):
    async def body(supervisor, run):
        supervised.folder.parent.mkdir(exist_ok=True)
        supervised.folder.write_text("a file is in the way")
        return await run(item("image_1"))

    (result,) = supervised(body)

    assert result.error.code == "output_not_written"
    assert str(supervised.folder) not in result.error.message


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [("exit", "rank 0 ended with exit code 3"), ("die", "rank 0 was ended by SIGKILL")],
)
def test_crash_loses_what_ran_and_the_ranks_come_back(prompt, reason, supervised, item, caplog):
    caplog.set_level("INFO", "sglang_core")
    states = []

    async def body(supervisor, run):
        supervisor.on_state(states.append)
        lost = await run(item("one"), item("two", prompt), item("three"))
        (after,) = await run(item("after"))
        return lost, after, supervisor.num_restarts

    (one, two, three), after, num_restarts = supervised(body)

    assert len(one.outputs) == 1
    assert not one.is_lost
    assert (two.is_lost, two.has_begun, two.error.code) == (True, True, "crashed")
    assert two.error.message == f"the model's process ended: {reason}"
    assert (three.is_lost, three.has_begun) == (True, False)
    assert len(after.outputs) == 1
    assert num_restarts == 1
    assert states == ["restarting", "ready", "stopped"]
    assert caplog.messages.count("the model's process runs again") == 1


def test_rank_that_is_killed_from_outside_is_noticed_while_idle(supervised, item, is_gone):
    async def body(supervisor, run):
        pid = pid_of(supervisor)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: supervisor.state != "ready" or pid_of(supervisor) != pid)
        await supervisor.wait_ready()
        assert is_gone(pid)
        return await run(item("after"))

    (after,) = supervised(body)

    assert len(after.outputs) == 1


def test_hanging_run_is_ended_within_the_limit(supervised, item):
    async def body(supervisor, run):
        (hung,) = await run(item("hung", "hang"))  # ten minutes
        (lively,) = await run(item("lively", "lively pause=6", num_inference_steps=1))
        return hung, lively

    # Far from the second after which a run says that it lives: a busy machine makes pauses of its own.
    hung, lively = supervised(body, step_timeout_s=5)

    assert (hung.is_lost, hung.error.code) == (True, "hung")
    assert re.match(r"the run gave no sign of life for \d+\.\d s", hung.error.message)
    assert "--step-timeout-s" in hung.error.remedy
    assert len(lively.outputs) == 1


def test_cancel_stops_within_a_step_and_keeps_the_rank(supervised, item):
    async def body(supervisor, run):
        pid = pid_of(supervisor)
        seen = asyncio.Event()

        def tell(event):
            if event.index == 2:
                seen.set()

        task = asyncio.create_task(run(item("long", "pause=0.1", num_inference_steps=2000), tell=tell))
        await seen.wait()
        supervisor.cancel("long")
        (cancelled,) = await asyncio.wait_for(task, 60)  # the whole run takes longer
        (following,) = await run(item("next"))
        assert pid_of(supervisor) == pid
        return cancelled, following

    cancelled, following = supervised(body)

    assert (cancelled.is_cancelled, cancelled.outputs, cancelled.error) == (True, (), None)
    assert len(following.outputs) == 1
    assert os.listdir(supervised.folder) == ["next.png"]


def test_item_that_is_cancelled_before_its_turn_never_runs(supervised, item):
    async def body(supervisor, run):
        first = asyncio.create_task(run(item("first"), item("second", "die")))
        await asyncio.sleep(0)
        supervisor.cancel("second")
        return await first

    first, second = supervised(body)

    assert len(first.outputs) == 1
    assert second.is_cancelled


def test_cancel_while_the_model_loads_returns_at_once(supervised, item):
    async def body(supervisor, run):
        task = asyncio.create_task(run(item("early")))
        await asyncio.sleep(0)
        supervisor.cancel("early")
        results = await task
        assert supervisor.state == "starting"
        return results

    (result,) = supervised(body, ready=False)

    assert (result.is_cancelled, result.has_begun) == (True, False)


def test_caller_that_goes_away_cancels_its_items(supervised, item):
    async def body(supervisor, run):
        task = asyncio.create_task(run(item("long", "pause=0.05", num_inference_steps=2000)))
        await until(lambda: supervisor._run is not None)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await run(item("after"))

    (after,) = supervised(body)

    assert len(after.outputs) == 1


def test_deadline_of_the_settings_ends_a_run(supervised, item):
    async def body(supervisor, run):
        (late,) = await run(item("late", "pause=0.05", num_inference_steps=2000))
        (own,) = await run(item("own", "pause=0.05", num_inference_steps=20, timeout_s=60))
        return late, own

    late, own = supervised(body, timeout_s=0.3)  # far less than loading takes

    assert (late.is_lost, late.error.code) == (False, "deadline_exceeded")
    assert len(own.outputs) == 1


def test_previews_are_sent_when_wished_for(supervised, item):
    events = []

    async def body(supervisor, run):
        await run(item("plain"), tell=events.append)
        assert all(event.preview_png is None for event in events)
        events.clear()
        await run(item("shown", num_previews=2, num_inference_steps=6, width=1024, height=512), tell=events.append)

    supervised(body)

    shown = [event for event in events if event.preview_png]
    assert [event.index for event in shown] == [2, 4]
    assert shown[0].preview_png.startswith(b"\x89PNG")
    assert struct.unpack(">II", shown[0].preview_png[16:24]) == (512, 256)


def test_batch_runs_together_where_the_pipeline_can(supervised, item, monkeypatch, rank_marks):
    monkeypatch.setenv("RANK_BATCHES", "1")

    async def body(supervisor, run):
        alone = [(await run(item(name, name, seed=seed)))[0] for seed, name in enumerate(("a", "b", "c"))]
        files = [(supervised.folder / f"{name}.png").read_bytes() for name in ("a", "b", "c")]
        together = await run(*(item(name, name, seed=seed) for seed, name in enumerate(("a", "b", "c"))))
        again = [(supervised.folder / f"{name}.png").read_bytes() for name in ("a", "b", "c")]
        return alone, together, files == again

    alone, together, is_equal = supervised(body)

    assert is_equal
    assert [result.id for result in together] == ["a", "b", "c"]
    assert [result.outputs for result in together] == [result.outputs for result in alone]
    assert (rank_marks.parent / "marks-batches").read_text() == "3\n"


def test_cancelled_or_wrong_item_of_a_batch_leaves_the_others(supervised, item, monkeypatch):
    monkeypatch.setenv("RANK_BATCHES", "1")
    events = []

    async def body(supervisor, run):
        seen = asyncio.Event()

        def tell(event):
            events.append(event)
            if event.index == 2:
                seen.set()

        items = [item("a", "slow", num_previews=1), item("b", "slow"), item("c", width=17)]
        task = asyncio.create_task(run(*items, tell=tell))
        await seen.wait()
        supervisor.cancel("b")
        return await task

    a, b, c = supervised(body)

    assert len(a.outputs) == 1
    assert (b.is_cancelled, b.outputs) == (True, ())
    assert c.error.code == "invalid_request"
    assert os.listdir(supervised.folder) == ["a.png"]
    assert {event.id for event in events if event.preview_png} == {"a"}  # who wishes for them
    for name in ("a", "b"):
        progress = [event.progress for event in events if event.id == name]
        assert progress == sorted(progress)


def test_batch_that_does_not_fit_is_run_one_by_one(supervised, item, monkeypatch):
    monkeypatch.setenv("RANK_BATCHES", "1")

    async def body(supervisor, run):
        return await run(item("a", "starve-together"), item("b"), item("c", "fail"))

    a, b, c = supervised(body)

    assert (len(a.outputs), len(b.outputs)) == (1, 1)
    assert c.error.code == "failed"


def test_model_that_cannot_be_loaded_is_told_with_its_remedy(supervised, item, monkeypatch, rank_marks):
    monkeypatch.setenv("RANK_LOADING", "refuse")

    async def body(supervisor, run):
        with pytest.raises(ModelLoadError) as failed:
            await supervisor.wait_ready()
        (result,) = await run(item("never"))
        return failed.value, supervisor.state, supervisor.reason, result

    error, state, reason, result = supervised(body, ready=False)

    assert (error.problem, error.remedy) == ("the weights are torn", "download them again")
    assert (state, reason) == ("failed", "the weights are torn")
    assert (result.is_lost, result.has_begun, result.error.message) == (True, False, "the weights are torn")
    assert len((rank_marks.parent / "marks-loads").read_text().splitlines()) == 1


def test_crash_while_loading_is_tried_again(supervised, item, monkeypatch):
    monkeypatch.setenv("RANK_LOADING", "die-once")

    async def body(supervisor, run):
        return await run(item("late"))

    (result,) = supervised(body, ready=False)

    assert len(result.outputs) == 1


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [("die", "was ended by SIGKILL"), ("hang", "loading made no progress for"), ("noise", "no longer says what")],
)
def test_server_gives_up_after_the_restarts_it_may_make(behaviour, reason, supervised, monkeypatch, rank_marks):
    monkeypatch.setenv("RANK_LOADING", behaviour)

    async def body(supervisor, run):
        with pytest.raises(ModelLoadError) as failed:
            await supervisor.wait_ready()
        return failed.value

    limits = {"max_restarts": 0, "load_timeout_s": 12} if behaviour == "hang" else {"max_restarts": 1}
    error = supervised(body, ready=False, **limits)

    assert reason in error.problem
    num_lives = len((rank_marks.parent / "marks-loads").read_text().splitlines())
    assert num_lives == 1 + limits["max_restarts"]


def test_request_that_crashes_once_can_be_tried_again(supervised, item):
    async def body(supervisor, run):
        (lost,) = await run(item("again", "die-once"))
        (found,) = await run(item("again", "die-once"))
        return lost, found

    lost, found = supervised(body)

    assert lost.error.message == "the model's process ended: rank 0 was ended by SIGSEGV"
    assert len(found.outputs) == 1


def test_stop_lets_a_run_end_and_leaves_no_process(supervised, item, is_gone):
    async def body(supervisor, run):
        pid = pid_of(supervisor)
        task = asyncio.create_task(run(item("last", "pause=0.05", num_inference_steps=6)))
        await until(lambda: supervisor._run is not None)
        await supervisor.stop(20)
        assert is_gone(pid)
        (late,) = await run(item("late"))
        return (await task)[0], late, supervisor.state

    last, late, state = supervised(body)

    assert len(last.outputs) == 1
    assert (late.is_lost, late.has_begun, late.error.code) == (True, False, "stopped")
    assert state == "stopped"


def test_stop_does_not_wait_longer_than_it_may(supervised, item, is_gone):
    async def body(supervisor, run):
        pid = pid_of(supervisor)
        task = asyncio.create_task(run(item("long", "hang")))
        await until(lambda: supervisor._run is not None)
        await asyncio.wait_for(supervisor.stop(0.2), 60)  # the run takes ten minutes
        assert is_gone(pid)
        return (await task)[0]

    result = supervised(body)

    assert (result.is_lost, result.error.code) == (True, "stopped")


def test_signals_that_reach_every_process_leave_the_rank_to_the_server(supervised, item):
    async def body(supervisor, run):
        pid = pid_of(supervisor)
        assert os.getsid(pid) == pid
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, number)
        (result,) = await run(item("still"))
        assert pid_of(supervisor) == pid
        return result

    assert len(supervised(body).outputs) == 1


SERVER = """
import asyncio, json, sys
from sglang_core import create_plugin_manager
from sglang_core.engine.supervisor import Supervisor, Work, WorkItem
from sglang_core.testing import make_settings
from sglang_plugins_builtin.launchers.spawn import SpawnLauncher

async def main():
    manager = create_plugin_manager()
    settings = make_settings(manager, model_path=sys.argv[1], device="cpu")
    supervisor = Supervisor(manager, settings, launcher=SpawnLauncher())
    await supervisor.start()
    await supervisor.wait_ready()
    from pathlib import Path
    items = (WorkItem(id="one", settings={"prompt": "a circle"}),)
    results = await supervisor.run(Work(items=items, folder=Path(sys.argv[2])), lambda event: None)
    heavy = sorted({"torch", "numpy", "PIL", "diffusers", "transformers"} & set(sys.modules))
    pid = supervisor._life.ranks.pids[0]
    print(json.dumps({"pid": pid, "files": [o.file for o in results[0].outputs], "heavy": heavy}), flush=True)
    items = (WorkItem(id="two", settings={"prompt": sys.argv[3]}),)
    await supervisor.run(Work(items=items, folder=Path(sys.argv[2])), lambda event: None)

asyncio.run(main())
"""


@pytest.mark.parametrize("prompt", ["hang", "a circle pause=100"])
def test_no_rank_outlives_a_server_that_is_killed(prompt, tiny_model, tmp_path, serve_settings, is_gone):
    import json

    command = [sys.executable, "-c", SERVER, str(tiny_model), str(tmp_path / "outputs"), prompt]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        told = json.loads(server.stdout.readline())
        assert not is_gone(told["pid"], 0.1)
        server.kill()

    assert is_gone(told["pid"])
    assert told["files"] == ["one.png"]
    assert told["heavy"] == []


class Unavailable:
    name, order = "far", 1

    def probe(self):
        return Availability.no("the cluster does not answer", "start the cluster")


class Broken(Unavailable):
    name = "broken"

    def probe(self):
        return Availability.yes()

    def launch(self, command):
        raise RuntimeError("no wheels")


class Launchers:
    def __init__(self, *launchers):
        self.launchers = launchers

    def into(self, manager):
        for launcher in self.launchers:
            manager.launchers.add(launcher, "test")
        return manager


def test_launcher_is_chosen_by_name_or_by_what_works(serve_settings):
    manager = Launchers(Unavailable(), Broken()).into(bare_manager())

    assert choose_launcher(manager, serve_settings()).name == "broken"
    with pytest.raises(UnavailableError, match="far: the cluster does not answer") as refused:
        choose_launcher(manager, serve_settings(launcher="far"))
    assert refused.value.remedy == "start the cluster"
    with pytest.raises(UnavailableError, match="unknown launcher 'brokn'") as unknown:
        choose_launcher(manager, serve_settings(launcher="brokn"))
    assert unknown.value.remedy == "use 'broken'"
    with pytest.raises(UnavailableError, match="no launcher is installed"):
        choose_launcher(bare_manager(), serve_settings())


def test_launcher_that_fails_ends_the_server_with_one_sentence(manager, serve_settings):
    async def main():
        supervisor = Supervisor(manager, serve_settings(), launcher=Broken())
        await supervisor.start()
        with pytest.raises(UnavailableError, match="launcher broken failed: RuntimeError: no wheels"):
            await supervisor.wait_ready()
        await supervisor.stop(1)

    asyncio.run(main())
