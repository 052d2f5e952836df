import threading

import pytest

from sglang_core import (
    DeadlineExceededError,
    PreviewReady,
    PreviewWish,
    RequestCancelledError,
    RunPaused,
    RunResumed,
    StageEnded,
    StageStarted,
    StepControl,
    StepDone,
    describe_timings,
)
from sglang_core.engine.rank_control import RankControl


def run(control, num_steps=3):
    """Make steps and return how many were done."""
    done = 0
    with control.stage("denoise", total=num_steps):
        for index in range(1, num_steps + 1):
            done += 1
            control.step("denoise", index, num_steps)
    return done


def test_stages_and_steps_are_told_in_order():
    events = []

    run(StepControl([events.append]), 2)

    assert [type(event) for event in events] == [StageStarted, StepDone, StepDone, StageEnded]
    assert [event.run_id for event in events] == [events[0].run_id] * 4
    assert (events[2].index, events[2].total) == (2, 2)
    assert events[-1].ok


def test_cancel_stops_within_one_step():
    events = []
    control = StepControl([events.append, lambda event: isinstance(event, StepDone) and control.cancel()])

    with pytest.raises(RequestCancelledError):
        run(control)

    assert [event.index for event in events if isinstance(event, StepDone)] == [1]
    assert events[-1].ok is False


def test_cancel_works_from_another_thread():
    control = StepControl()
    thread = threading.Thread(target=control.cancel)
    thread.start()
    thread.join()

    with pytest.raises(RequestCancelledError):
        run(control)


def test_deadline_stops_with_the_setting_in_the_message():
    with pytest.raises(DeadlineExceededError, match=r"\(--timeout-s 0\)") as stopped:
        run(StepControl(timeout_s=0.0))

    assert "--timeout-s" in stopped.value.remedy


def test_failing_listener_is_dropped_once_with_a_warning(caplog):
    calls, heard = [], []

    def fail(event):
        calls.append(event)
        raise ValueError("ouch")

    run(StepControl([fail, heard.append]))

    assert len(calls) == 1
    assert len(heard) == 5
    assert caplog.text.count("an event listener failed") == 1


def test_timings_of_a_stage_add_up_and_stages_nest():
    control = StepControl()

    for _ in range(2):
        with control.stage("outer"), control.stage("inner"):
            pass

    assert set(control.timings_s) == {"inner", "outer"}
    assert control.timings_s["outer"] >= control.timings_s["inner"]


def test_boundary_is_near_only_inside_counted_steps():
    control = StepControl()

    assert not control.has_steps
    with control.stage("fetch", total=5, unit="byte"):
        assert not control.has_steps
    with control.stage("denoise", total=5), control.stage("callback"):
        assert control.has_steps
    assert not control.has_steps


def test_shares_of_a_run_sum_to_one_even_if_no_time_passed():
    rows = describe_timings({"load": 1.0, "denoise": 2.0}, 4.0)

    assert rows == {
        "load": {"seconds": 1.0, "share": 0.25},
        "denoise": {"seconds": 2.0, "share": 0.5},
        "other": {"seconds": 1.0, "share": 0.25},
    }
    assert describe_timings({}, 0.0)["other"]["share"] == 0.0


def preview_steps(wish, total):
    control = StepControl(previews=wish)
    return [index for index in range(1, total + 1) if control.wants_preview(index, total)]


@pytest.mark.parametrize(
    ("wish", "total", "steps"),
    [
        (None, 10, []),
        (PreviewWish(), 10, []),
        (PreviewWish(count=1), 4, [2]),
        (PreviewWish(count=3), 20, [5, 10, 15]),
        (PreviewWish(count=3), 4, [1, 2, 3]),
        (PreviewWish(count=9), 4, [1, 2, 3]),
        (PreviewWish(count=2), 1, []),
        (PreviewWish(every=3), 9, [3, 6]),
        (PreviewWish(count=1, every=4), 10, [4, 5, 8]),
    ],
)
def test_previews_are_spread_over_the_steps_and_never_the_last(wish, total, steps):
    assert preview_steps(wish, total) == steps


def test_as_many_previews_as_wished_for_if_there_are_steps():
    for total in range(1, 40):
        for count in range(1, 6):
            assert len(preview_steps(PreviewWish(count=count), total)) == min(count, total - 1)


def test_preview_is_an_event():
    events = []
    control = StepControl([events.append], previews=PreviewWish(count=1))

    control.preview("frames", 2)

    assert isinstance(events[0], PreviewReady)
    assert (events[0].frames, events[0].output, events[0].run_id) == ("frames", 2, control.run_id)
    assert not control.wants_preview(1, None)


def test_time_of_others_counts_neither_for_the_deadline_nor_for_timings(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("sglang_core.engine.control.time.monotonic", lambda: clock[0])
    events = []
    control = StepControl([events.append], timeout_s=10.0)

    with control.stage("denoise", total=2):
        clock[0] += 4.0
        with control.paused():
            clock[0] += 1000.0
        control.step("denoise", 1, 2)
        clock[0] += 5.0
        control.step("denoise", 2, 2)
    assert (control.elapsed_s, control.paused_s, control.timings_s) == (9.0, 1000.0, {"denoise": 9.0})
    told = [event for event in events if isinstance(event, RunPaused | RunResumed)]
    assert [type(event) for event in told] == [RunPaused, RunResumed]
    assert told[1].paused_s == 1000.0

    clock[0] += 2.0
    with pytest.raises(DeadlineExceededError, match="stopped after 11"):
        control.check()


class Others:
    """What may run in the middle: each name once."""

    def __init__(self, *names):
        self.waiting = list(names)
        self.ran = []

    def __call__(self):
        return (lambda: self.ran.append(self.waiting.pop(0))) if self.waiting else None


def test_others_are_let_in_at_a_boundary_one_at_a_time():
    others = Others("a", "b")
    control = RankControl(on_life=lambda: None, interjected=others)

    control.check()
    assert others.ran == ["a"]
    control.step("denoise", 1, 3)
    assert others.ran == ["a", "b"]
    control.check()
    assert control.paused_s > 0


def test_nobody_is_let_into_a_run_that_is_to_stop_and_a_cancel_meanwhile_is_heard():
    others = Others("a")
    control = RankControl(on_life=lambda: None, interjected=others)
    control.cancel()
    with pytest.raises(RequestCancelledError):
        control.check()
    assert others.ran == []

    control = RankControl(on_life=lambda: None, interjected=lambda: control.cancel)
    with pytest.raises(RequestCancelledError):
        control.check()


def test_peak_of_a_run_leaves_out_what_others_took(monkeypatch):
    peak = [0]
    monkeypatch.setattr("sglang_core.engine.peak_memory.peak_memory_bytes", lambda: peak[0])
    monkeypatch.setattr("sglang_core.engine.peak_memory.reset_peak_memory", lambda: peak.__setitem__(0, 1))
    control = RankControl(on_life=lambda: None, interjected=lambda: lambda: peak.__setitem__(0, 900))

    peak[0] = 40
    control.check()
    peak[0] = 30

    assert control.memory.num_bytes == 40
