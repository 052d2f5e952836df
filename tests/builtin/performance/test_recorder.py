"""Events become spans; on a device the time is that of the work, not of handing it over."""

import sys
from types import SimpleNamespace

import pytest

from sglang_core import RunResumed, StageEnded, StageStarted, StepDone
from sglang_plugins_builtin.performance.recorder import Recorder, wait_for_device


def recorder_at(*times):
    ticks = iter([0.0, *times])
    return Recorder(clock=lambda: next(ticks))


def started(stage, unit="step"):
    return StageStarted(run_id="a", stage=stage, unit=unit)


def step(stage, index, unit="step"):
    return StepDone(run_id="a", stage=stage, index=index, total=2, unit=unit)


def ended(stage, ok=True):
    return StageEnded(run_id="a", stage=stage, duration_s=0.0, ok=ok)


def test_a_step_takes_the_time_since_the_last_one():
    recorder = recorder_at(1.0, 1.5, 3.5, 4.0)

    recorder.stage_started(started("denoise"))
    recorder.step_done(step("denoise", 1))
    recorder.step_done(step("denoise", 2))
    span = recorder.stage_ended(ended("denoise"))

    assert span is not None
    assert (span.started_s, span.seconds, span.step_seconds) == (1.0, 3.0, [0.5, 2.0])


def test_time_of_a_run_in_the_middle_is_left_out():
    recorder = recorder_at(1.0, 2.0, 13.5, 14.0)

    recorder.stage_started(started("denoise"))
    recorder.step_done(step("denoise", 1))
    recorder.resumed(RunResumed(run_id="a", paused_s=10.0))
    recorder.step_done(step("denoise", 2))
    span = recorder.stage_ended(ended("denoise"))

    assert span is not None
    assert (span.seconds, span.step_seconds) == (3.0, [1.0, 1.5])


def test_stages_may_lie_within_one_another():
    recorder = recorder_at(1.0, 2.0, 3.0, 5.0)

    recorder.stage_started(started("outer"))
    recorder.stage_started(started("inner"))
    recorder.stage_ended(ended("inner", ok=False))
    recorder.stage_ended(ended("outer"))

    assert [(span.stage, span.seconds, span.is_ok) for span in recorder.spans] == [
        ("outer", 4.0, True),
        ("inner", 1.0, False),
    ]


def test_bytes_are_not_timed_one_by_one():
    recorder = recorder_at(1.0, 2.0)

    recorder.stage_started(started("fetch", "byte"))
    recorder.step_done(step("fetch", 4096, "byte"))
    recorder.stage_ended(ended("fetch"))

    assert recorder.spans[0].step_seconds == []


def test_end_of_a_stage_that_never_began_is_no_span():
    assert recorder_at().stage_ended(ended("denoise")) is None


@pytest.mark.parametrize(("device", "waits"), [("cuda", 1), ("cpu", 0)])
def test_a_device_is_waited_for(monkeypatch, device, waits):
    calls = []
    cuda = SimpleNamespace(is_initialized=lambda: True, synchronize=lambda: calls.append("cuda"))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))

    wait_for_device(device)

    assert len(calls) == waits


def test_a_device_without_work_is_not_woken(monkeypatch):
    cuda = SimpleNamespace(is_initialized=lambda: False)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))

    wait_for_device("cuda")
