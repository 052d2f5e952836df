"""The way of a request, on one page: resolve, plan, fetch, load, run, encode, save."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import evolve

from .backends import TellingTransform
from .engine.control import StepControl
from .engine.in_process import Engine
from .errors import OutputError, RequestCancelledError
from .events import EventListener, OutputSaved, RunEnded, RunPlanned, RunStarted
from .foreign_code import translated
from .media import EncodingOptions, Receipt
from .options import Settings
from .options.host import OutputOptions, RunOptions, SamplingOptions
from .outputs import check_writable, open_atomic
from .planning import PlannedModel, plan_run
from .planning_types import ExecutionPlan
from .plugins import PluginManager
from .receipts import make_receipt
from .requests import GeneratedMedia, GenerationOutput, GenerationRequest, GenerationResult
from .uploads import output_uploads

logger = logging.getLogger(__name__)


def create_control(manager: PluginManager, settings: Settings, listeners: Sequence[EventListener] = ()) -> StepControl:
    """Return the control of one run, with every plugin and ``listeners`` as its audience."""
    return StepControl([*manager.listeners(), *listeners], timeout_s=settings.of(RunOptions).timeout_s)


def generate_outputs(manager: PluginManager, settings: Settings, control: StepControl) -> GenerationResult:
    """Make everything the settings ask for, and free the model again.

    :raises SglangError: for whatever goes wrong; files that were complete by then stay.
    """
    with announced(control, settings):
        with control.stage("plan"):
            planned = plan_run(manager, settings)
        control.emit(RunPlanned(run_id=control.run_id, plan=planned.plan))
        warn_of(planned.plan.warnings)
        prepare_outputs(planned.plan)
        with output_uploads(manager, settings, control) as uploads:
            with load_engine(manager, planned, control) as engine:
                outputs = run_requests(manager, planned.plan, engine, control, uploads.add if uploads else None)
            outputs = uploads.finish(outputs) if uploads else outputs
        return GenerationResult(outputs=outputs, duration_s=control.elapsed_s, timings_s=dict(control.timings_s))


def load_engine(manager: PluginManager, planned: PlannedModel, control: StepControl) -> Engine:
    """Fetch the files that the plan needs and load the model.

    :raises SglangError: if a file is missing or damaged, or the device too small.
    """
    files = planned.plan.model.files
    with control.stage("fetch", total=None, unit="byte"):
        folder = planned.source.fetch(files, lambda done, total: control.step("fetch", done, total, "byte"))
    return Engine.load(manager, planned.plan, folder, control)


def run_requests(
    manager: PluginManager,
    plan: ExecutionPlan,
    engine: Engine,
    control: StepControl,
    on_output: Callable[[int, GenerationOutput], None] | None = None,
    *,
    stays: bool = True,
) -> tuple[GenerationOutput, ...]:
    """Run the plan's requests one after the other and save each output as soon as it is there.

    :param on_output: told the index of each output and what it is, after it is saved.
    :param stays: see :func:`~.outputs.open_atomic`.
    """
    outputs = []
    for index, request in enumerate(plan.requests):
        started_s = control.elapsed_s
        with engine.following(plan):
            media = engine.run(request, control)
        output = finish_output(manager, plan, index, media, control, started_s, stays=stays)
        outputs.append(output)
        if on_output is not None:
            on_output(index, output)
    return tuple(outputs)


def finish_output(
    manager: PluginManager,
    plan: ExecutionPlan,
    index: int,
    media: GeneratedMedia,
    control: StepControl,
    started_s: float,
    *,
    stays: bool = True,
) -> GenerationOutput:
    """Save what was made for request ``index`` of the plan, and describe it.

    :param started_s: ``control.elapsed_s`` when its run began.
    :param stays: see :func:`~.outputs.open_atomic`.
    :raises OutputError: if it cannot be encoded or written.
    """
    request = plan.requests[index]
    media = _with_request_fps(media, request)
    receipt = make_receipt(plan, request, _transform_details(manager, plan))
    path = _save(manager, plan, media, receipt, index, control, stays=stays)
    output = _describe(plan, request, media, receipt, path)
    if path is not None:
        control.emit(_saved_event(control, output, index, control.elapsed_s - started_s))
    return output


def _transform_details(manager: PluginManager, plan: ExecutionPlan) -> dict[str, Any]:
    """Return what the transforms of a plan say of themselves in a receipt, by name."""
    chosen = [manager.pipeline_transforms.get(choice.value) for choice in plan.transforms]
    return {each.name: each.details(plan) for each in chosen if isinstance(each, TellingTransform)}


def warn_of(warnings: Iterable[str]) -> None:
    """Log what a plan says about itself."""
    for warning in warnings:
        logger.warning("%s", warning)


def prepare_outputs(plan: ExecutionPlan) -> None:
    """Say what is not as asked for in the outputs, and see that they can be written, before anything is made.

    :raises OutputError: if the folder cannot be written to.
    """
    warn_of(plan.output.notes)
    if plan.output.directory is not None:
        check_writable(Path(plan.output.directory))


def _with_request_fps(media: GeneratedMedia, request: GenerationRequest) -> GeneratedMedia:
    return media if request.fps is None or media.kind == "image" else evolve(media, fps=float(request.fps))


def _save(
    manager: PluginManager,
    plan: ExecutionPlan,
    media: GeneratedMedia,
    receipt: Receipt,
    index: int,
    control: StepControl,
    *,
    stays: bool,
) -> Path | None:
    output = plan.output
    if not output.paths:
        return None
    encoder = manager.media_encoders.get(output.encoder.value)
    options = EncodingOptions(compression=output.compression, x264_preset=output.x264_preset, fps=media.fps)
    path = output.paths[index]
    remedy = "choose another file name extension"
    saving = open_atomic(path, stays=stays)
    with control.stage("save"), saving as hidden, translated(encoder.name, OutputError, remedy, (OSError,)):
        encoder.encode(media, hidden, options, receipt)
    return path


def _describe(
    plan: ExecutionPlan, request: GenerationRequest, media: GeneratedMedia, receipt: Receipt, path: Path | None
) -> GenerationOutput:
    width, height = media.size
    return GenerationOutput(
        prompt=request.prompt,
        seed=request.seed,
        kind=media.kind,
        width=width,
        height=height,
        num_frames=media.num_frames,
        path=path,
        media=media if plan.settings.of(OutputOptions).return_frames else None,
        receipt=receipt,
    )


def _saved_event(control: StepControl, output: GenerationOutput, index: int, seconds: float) -> OutputSaved:
    details = {
        "seed": output.seed,
        "kind": output.kind,
        "width": output.width,
        "height": output.height,
        "num_frames": output.num_frames,
        "seconds": seconds,
    }
    return OutputSaved(run_id=control.run_id, path=str(output.path), index=index, details=details)


@contextmanager
def announced(control: StepControl, settings: Settings, job_ids: tuple[str, ...] = ()) -> Iterator[None]:
    """Tell the listeners that a run begins, and how it ended."""
    sampling = settings.of(SamplingOptions)
    num_outputs = max(1, len(sampling.prompt)) * sampling.num_outputs_per_prompt
    control.emit(RunStarted(run_id=control.run_id, settings=settings, num_outputs=num_outputs, job_ids=job_ids))
    outcome = "failed"
    try:
        yield
        outcome = "completed"
    except (RequestCancelledError, KeyboardInterrupt):
        outcome = "cancelled"
        raise
    finally:
        control.emit(RunEnded(run_id=control.run_id, outcome=outcome, duration_s=control.elapsed_s))
