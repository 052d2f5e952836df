"""What every plugin of a kind must do, as functions: each raises ``AssertionError`` with a sentence.

They need no test framework. The built-in plugins are held to them too.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import evolve

from ..backends import ExecutionBackend, LoadedPipeline, PipelineTransform
from ..engine.control import StepControl
from ..engine.in_process import Engine
from ..engine.rank_control import RankControl, RunWork
from ..errors import DeadlineExceededError, OutputError, RequestCancelledError, SglangError
from ..events import Event, StageEnded, StageStarted, StepDone
from ..hookspecs import hookimpl
from ..media import EncodingOptions, MediaEncoder
from ..models import ModelDescription, ModelReference, ModelResolver, describe_model
from ..planning import create_plan
from ..planning_types import ExecutionPlan
from ..registry import Availability
from ..requests import GeneratedMedia, MediaKind
from .managers import bare_manager, make_settings

_HEAVY = ("torch", "diffusers", "transformers", "numpy", "PIL", "av")
_RECEIPT = {"format": 1, "request": {"prompt": "a red circle, ein Würfel, 円", "seed": 7}}


def check_execution_backend(
    backend: ExecutionBackend, model: ModelDescription, folder: Path, **settings: Any
) -> ExecutionPlan:
    """Plan, load and run a model, stop it in the middle, and run it again, where it can within another run too.

    :param model: a model that the backend supports; its files lie in ``folder``.
    :param settings: settings of ``sglang generate`` for the run, for example small sizes and few steps. At least two
        steps are needed.
    :returns: the plan that was run.
    """
    _check_named(backend)
    _require(not isinstance(backend.honours, str), f"{backend.name}: honours is a collection of names, not one text")
    plan = _check_planning(backend, model, settings)
    engine = _load(backend, plan, folder)
    try:
        _check_running(backend.name, engine)
        _check_stopping(backend.name, engine)
        _check_interleaving(backend.name, engine)
    finally:
        engine.close()
    return plan


def _check_planning(backend: ExecutionBackend, model: ModelDescription, settings: dict[str, Any]) -> ExecutionPlan:
    manager = bare_manager(host_options=True)
    manager.register(_Brings(execution_backends=[backend]), "under_test")
    settings = {"prompt": "a red circle", "output_path": "", "backend": backend.name, "device": "cpu", **settings}
    before = set(sys.modules)
    given = {name: value for name, value in settings.items() if manager.options.find(name, tuple(manager.options))}
    _require(given == settings, f"settings that the host does not have: {sorted(set(settings) - set(given))}")
    plan = create_plan(manager, make_settings(manager, **settings), model)
    _check_light(backend.name, "planning", before)
    _require(plan.kind in ("image", "video"), f"{backend.name}: {plan.kind!r} is no kind of media")
    steps = plan.requests[0].num_inference_steps
    _require(steps is not None and steps >= 2, f"{backend.name}: this check needs at least two steps, not {steps}")
    return plan


def _load(backend: ExecutionBackend, plan: ExecutionPlan, folder: Path) -> Engine:
    events: list[Event] = []
    control = StepControl([events.append])
    engine = Engine(plan, backend.load(plan, folder, control))
    _check_events(backend.name, events)
    _require(_stages(events) >= {"load"}, f"{backend.name}: loading reports no stage 'load'")
    return engine


def _check_running(name: str, engine: Engine) -> None:
    request = engine.plan.requests[0]
    events: list[Event] = []
    first = engine.run(request, StepControl([events.append]))
    _check_events(name, events)
    steps = [event for event in events if isinstance(event, StepDone) and event.stage == "denoise"]
    _require(
        [step.index for step in steps] == list(range(1, len(steps) + 1)) and len(steps) >= 2,
        f"{name}: the stage 'denoise' reports the steps {[step.index for step in steps]}, not 1, 2, ...",
    )
    wanted = (request.width or first.size[0], request.height or first.size[1])
    _require(first.size == wanted, f"{name}: the frames have the size {first.size}, not {wanted}")
    _require(first.kind == engine.plan.kind, f"{name}: the result is of kind {first.kind}, planned {engine.plan.kind}")
    again = engine.run(request, StepControl())
    _require(_same(first, again), f"{name}: the same request twice gives different frames")
    other = engine.run(evolve(request, seed=request.seed + 1), StepControl())
    _require(not _same(first, other), f"{name}: another seed gives the same frames")


def _check_interleaving(name: str, engine: Engine) -> None:
    """See that a run in the middle of another changes neither, where the pipeline says so."""
    if not engine.can_interleave:
        return
    request = engine.plan.requests[0]
    other = evolve(request, seed=request.seed + 1)
    alone = [engine.run(each, StepControl()) for each in (request, other)]
    steps: list[Event] = []
    within: list[GeneratedMedia] = []

    def interjected() -> RunWork | None:
        if not steps:
            return None
        steps.clear()
        return lambda: within.append(engine.run(other, StepControl()))

    listener = [lambda event: steps.append(event) if isinstance(event, StepDone) else None]
    around = engine.run(request, RankControl(listener, on_life=lambda: None, interjected=interjected))
    is_same = _same(around, alone[0]) and all(_same(media, alone[1]) for media in within)
    _require(is_same, f"{name}: it says can_interleave, but a run in the middle of another changes the frames")


def _check_stopping(name: str, engine: Engine) -> None:
    request = engine.plan.requests[0]
    before = engine.run(request, StepControl())
    steps: list[Event] = []
    control = StepControl()

    def cancel_at_first_step(event: Event) -> None:
        if isinstance(event, StepDone) and event.stage == "denoise":
            steps.append(event)
            control.cancel()

    control = StepControl([cancel_at_first_step])
    _expect(RequestCancelledError, f"{name}: a cancelled run", lambda: engine.run(request, control))
    _require(len(steps) == 1, f"{name}: {len(steps) - 1} more step(s) were made after the run was cancelled")
    _expect(
        DeadlineExceededError,
        f"{name}: a run whose time is over",
        lambda: engine.run(request, StepControl(timeout_s=0.0)),
    )
    after = engine.run(request, StepControl())
    _require(_same(before, after), f"{name}: after a stopped run the same request gives other frames")


def check_media_encoder(encoder: MediaEncoder, folder: Path) -> None:
    """Write a small picture or clip of each kind that the encoder holds, and read its receipt back.

    :param folder: an empty folder for the files.
    """
    _check_named(encoder)
    for extension in encoder.extensions:
        _require(
            extension == extension.lower() and not extension.startswith("."),
            f"{encoder.name}: the extension {extension!r} must be in lower case and without a dot",
        )
    kinds: tuple[MediaKind, ...] = ("image", "video")
    _require(set(encoder.kinds) <= set(kinds) and bool(encoder.kinds), f"{encoder.name}: holds no known kind of media")
    for kind in kinds:
        media = _small_media(kind)
        if kind in encoder.kinds:
            _check_encoding(encoder, media, folder)
        else:
            _check_refusal(encoder, media, folder)


def _check_refusal(encoder: MediaEncoder, media: GeneratedMedia, folder: Path) -> None:
    path = folder / f"refused_{media.kind}.{next(iter(encoder.extensions))}"
    what = f"{encoder.name}: encoding a kind it does not hold ({media.kind})"
    _expect(OutputError, what, lambda: encoder.encode(media, path, EncodingOptions(), _RECEIPT))


def _check_encoding(encoder: MediaEncoder, media: GeneratedMedia, folder: Path) -> None:
    paths = [folder / f"{media.kind}_{i}.{next(iter(encoder.extensions))}" for i in range(2)]
    pixels = media.frames.copy()
    for path in paths:
        encoder.encode(media, path, EncodingOptions(compression=50), _RECEIPT)
        _require(path.is_file() and path.stat().st_size > 0, f"{encoder.name}: encoding wrote no file")
    same = paths[0].read_bytes() == paths[1].read_bytes()
    _require(same, f"{encoder.name}: the same {media.kind} twice gives different bytes")
    _require(bool((pixels == media.frames).all()), f"{encoder.name}: encoding changed the frames it was given")
    found = encoder.read_receipt(paths[0])
    _require(found == _RECEIPT, f"{encoder.name}: the receipt reads back as {found!r}, not {_RECEIPT!r}")


def check_model_resolver(resolver: ModelResolver, reference: ModelReference, foreign: ModelReference) -> None:
    """Resolve a model and read its description and one file; a foreign reference must be left to others.

    :param reference: a model that the resolver finds.
    :param foreign: a reference that is not of its kind.
    """
    _check_named(resolver)
    _require(resolver.resolve(foreign) is None, f"{resolver.name}: it answers for {foreign.path!r}, which is foreign")
    hint = resolver.hint(foreign)
    _require(hint is None or bool(hint.strip()), f"{resolver.name}: its hint is empty")
    source = resolver.resolve(reference)
    if source is None:
        raise AssertionError(f"{resolver.name}: it does not find {reference.path!r}")
    _require(source.resolver == resolver.name, f"{resolver.name}: its source says it was found by {source.resolver!r}")
    files = source.files()
    whole = source.read("model_index.json")
    _require(len(whole) == files["model_index.json"], f"{resolver.name}: the size of model_index.json is wrong")
    _require(source.read("model_index.json", 1, 3) == whole[1:4], f"{resolver.name}: reading a part gives other bytes")
    needed = describe_model(source).files
    seen: list[tuple[int, int]] = []
    folder = source.fetch(needed, lambda done, total: seen.append((done, total)))
    missing = [path for path in needed if not (folder / path).is_file()]
    _require(not missing, f"{resolver.name}: fetching left out {', '.join(missing)}")
    _require(seen == sorted(seen), f"{resolver.name}: the progress of fetching goes backwards: {seen}")


def check_pipeline_transform(transform: PipelineTransform, plan: ExecutionPlan, pipeline: LoadedPipeline) -> None:
    """Ask a transform whether a plan wants it, apply it, and find every component still there.

    :param plan: a plan that wants it.
    :param pipeline: a loaded pipeline of that plan.
    """
    _check_named(transform)
    before = set(sys.modules)
    reason = transform.wanted(plan)
    _check_light(transform.name, "planning", before)
    _require(bool(reason and reason.strip()), f"{transform.name}: it gives no reason for a plan that wants it")
    names = set(pipeline.components)
    transform.apply(pipeline, plan)
    lost = names - set(pipeline.components)
    _require(not lost, f"{transform.name}: it took components away: {', '.join(sorted(lost))}")


class _Brings:
    """A plugin with one backend."""

    def __init__(self, execution_backends: list[ExecutionBackend]) -> None:
        self._execution_backends = execution_backends

    @hookimpl
    def sglang_register_execution_backends(self) -> list[ExecutionBackend]:
        return self._execution_backends


def _check_named(item: Any) -> None:
    """Check what all contributions share: name, order, probe."""
    name = item.name
    _require(isinstance(name, str) and bool(name) and name == name.strip().lower(), f"{name!r} is no lower-case name")
    _require(isinstance(item.order, int), f"{name}: its order is {item.order!r}, not a whole number")
    before = set(sys.modules)
    answer = item.probe()
    _check_light(name, "probe", before)
    _require(isinstance(answer, Availability), f"{name}: probe returned {answer!r}, not an Availability")
    _require(
        answer.is_available or bool(answer.reason and answer.remedy),
        f"{name}: it is not available, and does not say why and what would help",
    )
    _require(answer.is_available, f"{name} cannot be checked here: {answer.reason} ({answer.remedy})")


def _check_light(name: str, what: str, before: set[str]) -> None:
    loaded = sorted(module for module in _HEAVY if module in sys.modules and module not in before)
    _require(not loaded, f"{name}: {what} imports {', '.join(loaded)}; do that when the work begins")


def _check_events(name: str, events: list[Event]) -> None:
    """Check that stages end in the reverse order of their begin, and steps lie inside their stage."""
    open_stages: list[str] = []
    for event in events:
        if isinstance(event, StageStarted):
            open_stages.append(event.stage)
        elif isinstance(event, StageEnded):
            _require(bool(open_stages) and open_stages.pop() == event.stage, f"{name}: {event.stage} ends out of turn")
        elif isinstance(event, StepDone):
            _require(event.stage in open_stages, f"{name}: a step of {event.stage!r} is reported outside that stage")
    _require(not open_stages, f"{name}: the stages {open_stages} never end")


def _stages(events: list[Event]) -> set[str]:
    return {event.stage for event in events if isinstance(event, StageStarted)}


def _same(one: GeneratedMedia, other: GeneratedMedia) -> bool:
    return one.frames.shape == other.frames.shape and bool((one.frames == other.frames).all())


def _small_media(kind: MediaKind) -> GeneratedMedia:
    import numpy  # only where frames are made

    count, side = (1, 32) if kind == "image" else (5, 32)
    frames = numpy.zeros((count, side, side, 3), dtype=numpy.uint8)
    for index in range(count):
        frames[index, index : index + 8, 4:20] = (220, 40, 30)
    return GeneratedMedia(kind=kind, frames=frames, fps=8.0 if kind == "video" else None)


def _expect(kind: type[SglangError], what: str, call: Callable[[], object]) -> None:
    try:
        call()
    except kind:
        return
    raise AssertionError(f"{what} does not end in {kind.__name__}")


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise AssertionError(sentence)
