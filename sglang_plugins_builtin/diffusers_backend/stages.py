"""Step control for pipelines that know nothing of it: where one call encodes, denoises and decodes.

diffusers pipelines tell their steps to ``progress_bar``, their schedulers are asked once or more often in each step,
and their encoders and VAEs are modules that are called. Watching these three works for every pipeline, also one that a
repo brings, and needs no callback from it.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from sglang_core import StepControl

from .previews import Estimate, Frames, estimate_of


class CallStages:
    """The stages of one call, ``encode``, ``denoise``, ``decode``, as a context around it.

    :param show: makes a picture of an estimate of the clean latents, if it can.
    """

    def __init__(self, control: StepControl, show: Callable[[Estimate], Frames | None] = lambda estimate: None) -> None:
        self._control = control
        self._show = show
        self._estimate: Estimate | None = None
        self._open: AbstractContextManager[None] | None = None
        self._stage = ""
        self._total: int | None = None
        self._index = 0
        self._has_bar = False

    def __enter__(self) -> "CallStages":
        self._enter("encode")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(kind, error, trace)

    def _enter(self, stage: str, total: int | None = None) -> None:
        self._leave(None, None, None)
        context = self._control.stage(stage, total)
        context.__enter__()
        self._open, self._stage, self._total, self._index = context, stage, total, 0

    def _leave(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        context, self._open = self._open, None
        if context is not None:
            context.__exit__(kind, error, trace)

    def check(self) -> None:
        """Stop here if that was asked for."""
        self._control.check()

    def begin_steps(self, total: int | None) -> None:
        """Note that the pipeline opened its progress bar."""
        self._has_bar = True
        self._enter("denoise", total)

    def step_done(self) -> None:
        """Note that one step is done."""
        self._index += 1
        self._control.step("denoise", self._index, self._total)
        estimate, self._estimate = self._estimate, None
        if estimate is not None:
            frames = self._show(estimate)
            if frames is not None:
                self._control.preview(frames)

    def end_steps(self) -> None:
        """Note that the pipeline closed its progress bar."""
        self._enter("decode")

    def scheduler_steps(self, num_timesteps: int | None) -> None:
        """Note that a scheduler is asked for a step: all there is to count where a pipeline has no progress bar."""
        if self._has_bar:
            self._control.check()
        elif self._stage != "denoise":
            self._enter("denoise", num_timesteps)

    def scheduler_stepped(self, estimate: Callable[[], Estimate]) -> None:
        """Note that a scheduler has answered; ``estimate`` is asked for only if a picture is wished for."""
        if self._control.wants_preview(self._index + 1, self._total):
            self._estimate = estimate()
        if not self._has_bar:
            self.step_done()

    def module_called(self, is_decoder: bool) -> None:
        """Note that an encoder or a VAE, or a block of one, is called."""
        if is_decoder and self._stage == "denoise" and not self._has_bar:
            self._enter("decode")
        self._control.check()


class StepBar:
    """Stands where a pipeline expects its progress bar: a context, an iterator, something to ``update``."""

    def __init__(self, stages: CallStages, iterable: Iterable[Any] | None, total: int | None) -> None:
        self._stages = stages
        self._iterable = iterable
        self.total = len(iterable) if total is None and isinstance(iterable, Sized) else total
        self.n = 0
        self._has_begun = False

    def _begin(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._stages.begin_steps(self.total)

    def __enter__(self) -> "StepBar":
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()

    def __iter__(self) -> Iterator[Any]:
        self._begin()
        for item in self._iterable or ():
            yield item
            self.update()
        self.close()

    def update(self, n: float | None = 1) -> None:
        """Count steps, each of them a boundary."""
        self._begin()
        for _ in range(int(n or 0)):
            self.n += 1
            self._stages.step_done()

    def close(self) -> None:
        """End the steps; closing twice does nothing."""
        if self._has_begun:
            self._has_begun = False
            self._stages.end_steps()

    def set_description(self, *_: Any, **__: Any) -> None:
        """Accept a text that nobody shows: the host names the stages."""

    set_description_str = set_postfix = set_postfix_str = refresh = set_description


class StageWatch:
    """What watches a loaded pipeline, whichever call is running. Between two calls it lets everything pass.

    :param pipeline: gets another ``progress_bar``; its scheduler gets a subclass as its class that tells each step.
    """

    def __init__(self, pipeline: Any) -> None:
        self.current: CallStages | None = None
        self.watch_bars(pipeline)
        for name, component in pipeline.components.items():
            if name.startswith("scheduler") or name.endswith("_scheduler"):
                self._watch_scheduler(component)
            elif hasattr(component, "register_forward_pre_hook") and not name.startswith(_DENOISERS):
                self._watch_module(component, is_decoder="vae" in name or name in {"vqvae", "movq", "vocoder"})
            elif hasattr(component, "progress_bar"):
                self.watch_bars(component)

    def watch_bars(self, pipeline: Any) -> None:
        """Watch what another pipeline on the same components tells its progress bar."""
        original = pipeline.progress_bar if hasattr(pipeline, "progress_bar") else None

        def progress_bar(iterable: Iterable[Any] | None = None, total: int | None = None) -> Any:
            if self.current is None:
                return original(iterable, total) if original else iterable
            return StepBar(self.current, iterable, total)

        pipeline.progress_bar = progress_bar

    def _watch_scheduler(self, scheduler: Any) -> None:
        """Give the scheduler a class whose ``step`` is told.

        A function on the instance would not do: pipelines copy schedulers, and the copy would step the original.
        """
        original = type(scheduler)
        if not hasattr(original, "step"):
            return
        watch = self

        @functools.wraps(original.step)  # pipelines look at its signature
        def step(self: Any, *args: Any, **kwargs: Any) -> Any:
            current = watch.current
            if current is None or self is not scheduler:
                return original.step(self, *args, **kwargs)
            current.scheduler_steps(_num_timesteps(self))
            result = original.step(self, *args, **kwargs)
            current.scheduler_stepped(lambda: estimate_of(self, args, result))
            return result

        names = {"step": step, "__module__": original.__module__, "__qualname__": original.__qualname__}
        scheduler.__class__ = type(original.__name__, (original,), names)

    def _watch_module(self, module: Any, is_decoder: bool) -> None:
        """Check before an encoder or a VAE is called and before each of its blocks."""

        def before(*_: Any) -> None:
            if self.current is not None:
                self.current.module_called(is_decoder)

        module.register_forward_pre_hook(before)
        for child in module.modules():
            if type(child).__name__ == "ModuleList":
                for block in child:
                    block.register_forward_pre_hook(before)


#: Called in every step, so they are left alone: the boundary is the step, and compiled modules stay as they are.
_DENOISERS = ("transformer", "unet", "prior", "decoder", "connectors", "controlnet")


def _num_timesteps(scheduler: Any) -> int | None:
    timesteps = getattr(scheduler, "timesteps", None)
    return len(timesteps) if timesteps is not None else None
