from io import StringIO

from sglang_core import StageEnded, StageStarted, StepDone
from sglang_plugins_builtin.terminal.plain import REPORT_INTERVAL_S, PlainDisplay


def test_long_stage_reports_now_and_then() -> None:
    stream, now_s = StringIO(), 0.0
    display = PlainDisplay(stream, clock=lambda: now_s)

    display.stage_started(StageStarted(run_id="a", stage="denoise", total=8))
    for index in range(1, 9):
        now_s += REPORT_INTERVAL_S / 3
        display.step_done(StepDone(run_id="a", stage="denoise", index=index, total=8))
    display.stage_ended(StageEnded(run_id="a", stage="denoise", duration_s=80.0))

    assert stream.getvalue() == "denoise: 3/8 steps\ndenoise: 6/8 steps\ndenoise: 8 steps in 1:20\n"


def test_stage_without_steps_says_only_its_time() -> None:
    stream = StringIO()
    display = PlainDisplay(stream)

    display.stage_started(StageStarted(run_id="a", stage="encode"))
    display.stage_ended(StageEnded(run_id="a", stage="encode", duration_s=0.25))

    assert stream.getvalue() == "encode: 0.2 s\n"
