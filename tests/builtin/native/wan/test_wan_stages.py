"""Runs that are stopped, and what the stages share between runs."""

import contextlib
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from sglang_core import Event, RequestCancelledError, StageEnded, StepControl, StepDone


class Watch:
    """A listener that cancels its run at some event and keeps what came after."""

    def __init__(self, cancels_at: Callable[[Event], bool]) -> None:
        self.control = StepControl([self])
        self.after: list[Event] = []
        self._cancels_at = cancels_at

    def __call__(self, event: Event) -> None:
        if self.control.is_cancelled:
            self.after.append(event)
        elif self._cancels_at(event):
            self.control.cancel()


def ended(events: list[Event]) -> list[tuple[str, bool]]:
    return [(event.stage, event.ok) for event in events if isinstance(event, StageEnded)]


@pytest.mark.parametrize("name", ["t2v", "t2v-experts", "i2v"])
def test_a_run_that_is_cancelled_while_denoising_ends_with_that_step(name, native, images_of):
    expected = native(name).latents(**images_of(name))
    request = native(name).probe.state.request
    watch = Watch(lambda event: isinstance(event, StepDone) and event.stage == "denoise" and event.index == 2)

    with pytest.raises(RequestCancelledError):
        native(name).probe.pipeline.run(request, watch.control)

    assert not any(isinstance(event, StepDone) for event in watch.after)
    assert ended(watch.after) == [("denoise", False)]
    assert torch.equal(native(name).latents(**images_of(name)), expected)


@pytest.mark.parametrize(("name", "part"), [("t2v", "decoder"), ("i2v", "encoder"), ("i2v", "decoder")])
def test_a_run_that_is_cancelled_while_coding_frames_stops_within_a_chunk(name, part, native, images_of):
    frames = native(name).frames(num_frames=9, **images_of(name))
    pipeline, request = native(name).probe.pipeline, native(name).probe.state.request
    control = StepControl()
    chunks: list[Any] = []

    def cancel(module: Any, arguments: Any, result: Any) -> None:
        chunks.append(result)
        control.cancel()

    hook = getattr(pipeline.components["vae"], part).register_forward_hook(cancel)
    with pytest.raises(RequestCancelledError):
        pipeline.run(request, control)
    hook.remove()

    assert len(chunks) == 1  # of three
    assert native(name).frames(num_frames=9, **images_of(name)).tobytes() == frames.tobytes()


def test_a_run_that_is_cancelled_before_it_starts_computes_nothing(native):
    native("t2v").frames()
    control = StepControl()
    control.cancel()

    with pytest.raises(RequestCancelledError):
        native("t2v").probe.pipeline.run(native("t2v").probe.state.request, control)

    assert control.timings_s == {}


@pytest.mark.parametrize("is_cancelled", [False, True], ids=["after a run", "after a run that was stopped"])
def test_what_the_steps_share_is_freed_with_the_run(is_cancelled, native):
    loaded = native("t2v-experts", is_shared=False)
    loaded.frames()
    request, loaded.probe.state = loaded.probe.state.request, None
    watch = Watch(lambda event: is_cancelled and isinstance(event, StepDone) and event.index == 2)
    block = loaded.probe.pipeline.components["transformer_2"].blocks[0]
    keys: list[weakref.ref[torch.Tensor]] = []

    def keep(module: Any, arguments: Any) -> None:
        if arguments[0] is not None:
            keys.append(weakref.ref(arguments[3].key))

    block.register_forward_pre_hook(keep)
    with contextlib.suppress(RequestCancelledError):
        loaded.probe.pipeline.run(request, watch.control)
    loaded.probe.state = None

    assert keys
    assert [key() for key in keys] == [None] * len(keys)


def test_a_prompt_is_encoded_once(native):
    loaded = native("t2v", is_shared=False)
    encoder = loaded.probe.pipeline.components["text_encoder"]
    lengths: list[int] = []
    encoder.register_forward_pre_hook(lambda module, arguments: lengths.append(arguments[0].shape[1]))

    loaded.frames("a red circle")
    loaded.frames("a red circle", seed=1)

    assert lengths == [4, 1]  # the prompt and the empty negative one, each with the end of text
    loaded.frames("the circle", guidance_scale=1.0)
    assert lengths == [4, 1, 3]


def test_an_expert_whose_turn_does_not_come_prepares_nothing(native):
    loaded = native("t2v-experts")
    second = loaded.probe.pipeline.components["transformer_2"]
    calls: list[Any] = []
    hook = second.register_forward_hook(lambda *_: calls.append(_))

    loaded.frames(num_inference_steps=1)
    first_alone = len(calls)
    loaded.frames(num_inference_steps=3)
    hook.remove()

    assert first_alone == 0
    assert len(calls) == 2  # of three steps, each for prompt and negative prompt together
