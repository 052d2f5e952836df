"""The stage that encodes prompts."""

from collections.abc import Callable

import torch

from sglang_core import GenerationRequest, StepControl

from .conditioning import ConditioningCache
from .residency import Residency
from .state import RunState


class EncodePrompts:
    """Encode prompt and negative prompt, each at its own length; what was encoded lately is remembered.

    :param encode: returns the states (1, tokens, size) of a prompt; the component ``text_encoder`` is ready then.
    :param is_guided: whether a request needs its negative prompt.
    """

    name = "encode"

    def __init__(
        self,
        encode: Callable[[str], torch.Tensor],
        residency: Residency,
        *,
        is_guided: Callable[[GenerationRequest], bool],
    ) -> None:
        self.cache: ConditioningCache[torch.Tensor] = ConditioningCache()
        self._encode = encode
        self._residency = residency
        self._is_guided = is_guided

    def forget(self) -> None:
        """Forget what was encoded: the encoder has other weights."""
        self.cache.clear()

    def num_steps(self, state: RunState) -> None:
        """Return nothing: it is short."""
        return

    def run(self, state: RunState, control: StepControl) -> None:
        """Set the conditions ``text`` and, with guidance, ``negative_text``: (1, tokens, size) each."""
        request = state.request
        state.conditions["text"] = self._states(request.prompt)
        if self._is_guided(request):
            control.check()
            state.conditions["negative_text"] = self._states(request.negative_prompt or "")

    def _states(self, prompt: str) -> torch.Tensor:
        def make() -> torch.Tensor:
            self._residency.use("text_encoder")
            return self._encode(prompt)

        return self.cache.get_or_make(prompt, make)
