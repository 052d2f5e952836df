from sglang_core import OutputSaved, StageEnded, StageStarted, StepDone
from sglang_core.engine.progress import ProgressMeter


def events_of_output(steps, save=True):
    def stage(name, *inner, total=None):
        return [
            StageStarted(run_id="r", stage=name, total=total),
            *inner,
            StageEnded(run_id="r", stage=name, duration_s=0.1),
        ]

    denoise = [StepDone(run_id="r", stage="denoise", index=i, total=steps) for i in range(1, steps + 1)]
    return [
        *stage("encode"),
        *stage("denoise", *denoise, total=steps),
        *stage("decode"),
        *stage("save"),
        OutputSaved(run_id="r", path="x", index=0),
    ]


def test_progress_grows_with_the_steps_and_ends_at_one():
    meter = ProgressMeter(1)
    seen = [meter.update(event) for event in events_of_output(10)]

    assert seen == sorted(seen)
    assert seen[0] == 0.0
    assert 0.4 < seen[7] < 0.5  # the fifth of ten steps
    assert seen[-2] < 1.0
    assert seen[-1] == 1.0


def test_outputs_share_the_progress_evenly():
    meter = ProgressMeter(4)
    ends = []
    for _ in range(4):
        for event in events_of_output(3):
            meter.update(event)
        ends.append(meter.progress)

    assert ends == [0.25, 0.5, 0.75, 1.0]


def test_second_loop_of_steps_does_not_lead_back():
    meter = ProgressMeter(1)
    for event in events_of_output(10)[:14]:
        meter.update(event)
    before = meter.progress

    meter.update(StepDone(run_id="r", stage="denoise", index=1, total=4))
    assert meter.progress == before
    meter.update(StepDone(run_id="r", stage="interpolate", index=2, total=4))
    assert before < meter.progress < 1.0
