import threading

import pytest

from sglang_core import (
    DeadlineExceededError,
    RequestCancelledError,
    StageEnded,
    StageStarted,
    StepControl,
    StepDone,
    describe_timings,
)


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
