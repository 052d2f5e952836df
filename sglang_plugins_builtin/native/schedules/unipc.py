"""The multistep solver UniPC for models that predict the flow.

It is the one of "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models"
(arXiv:2302.04867). Every step is a sum of tensors with factors that depend on the noise levels alone, so all factors
are computed before the first step.
"""

from collections.abc import Sequence

import numpy as np
import torch
from attrs import frozen

from .levels import shifted, stretched
from .settings import Solver, UniPCSettings

#: The first noise level stays this much below 1, where the logarithm of the signal is finite.
_SIGMA_GAP = 1e-6


class UniPCSchedule:
    """One run of the solver; it remembers what earlier steps predicted. Steps are taken in order.

    :ivar timesteps: what the transformer is told at each step, int64 (steps,).
    :ivar sigmas: noise levels, float32 (steps + 1,), on the CPU.
    """

    def __init__(self, solver: Solver, sigmas: torch.Tensor, timesteps: torch.Tensor, num_train_timesteps: int) -> None:
        self.num_train_timesteps = num_train_timesteps
        self.timesteps = timesteps
        self.sigmas = sigmas
        self._levels: list[float] = sigmas.tolist()
        self._steps = _plan_steps(solver, sigmas)
        self._history = solver.order
        self._clean: list[torch.Tensor] = []  # predictions of the clean latents, the latest first
        self._before: torch.Tensor | None = None  # the latents that the last step started from

    def __len__(self) -> int:
        return len(self._steps)

    def step(self, prediction: torch.Tensor, index: int, latents: torch.Tensor) -> torch.Tensor:
        """Return the latents after step ``index``, in their own dtype; ``prediction`` is the flow at ``latents``."""
        planned = self._steps[index]
        sample = latents.float()
        clean = sample - self._levels[index] * prediction.float()
        if planned.correct is not None and self._before is not None:
            sample = planned.correct.apply(self._before, self._clean, clean)
        self._clean = [clean, *self._clean][: self._history]
        self._before = sample
        return planned.predict.apply(sample, self._clean, None).to(latents.dtype)


def start_unipc(settings: UniPCSettings, num_steps: int, flow_shift: float) -> UniPCSchedule:
    """Return the schedule of one run; see :meth:`UniPCSettings.start`."""
    sigmas = shifted(np.linspace(1, 1 / settings.num_train_timesteps, num_steps + 1)[:-1], flow_shift)
    if settings.shift_terminal:
        sigmas = stretched(sigmas, settings.shift_terminal)
    if abs(sigmas[0] - 1) < _SIGMA_GAP:
        sigmas[0] -= _SIGMA_GAP
    timesteps = torch.from_numpy(sigmas * settings.num_train_timesteps).to(torch.int64)
    last = 0.0 if settings.final_sigmas_type == "zero" else sigmas[-1]
    levels = torch.from_numpy(np.append(sigmas, last).astype(np.float32))
    return UniPCSchedule(settings.solver, levels, timesteps, settings.num_train_timesteps)


@frozen
class _Update:
    """From one noise level to another, as factors of what is known.

    The result is ``keep * x + clean * m0 + sum(past[k] * (m[k + 1] - m0)) + now * (m_now - m0)``, where m0 is the
    latest prediction of the clean latents, m[1], m[2] are earlier ones and m_now is the one at the target.
    """

    keep: float
    clean: float
    past: tuple[float, ...] = ()
    now: float = 0.0

    def apply(self, sample: torch.Tensor, clean: Sequence[torch.Tensor], now: torch.Tensor | None) -> torch.Tensor:
        latest = clean[0]
        result = self.keep * sample + self.clean * latest
        for factor, earlier in zip(self.past, clean[1:], strict=False):
            result.add_(earlier - latest, alpha=factor)
        if now is not None:
            result.add_(now - latest, alpha=self.now)
        return result


@frozen(kw_only=True)
class _Step:
    predict: _Update
    #: Goes again over the step before, now knowing what the model predicts at its end.
    correct: _Update | None = None


def _plan_steps(solver: Solver, sigmas: torch.Tensor) -> list[_Step]:
    num_steps = len(sigmas) - 1
    steps: list[_Step] = []
    order_before = 0
    for index in range(num_steps):
        order = min(solver.order, index + 1)
        if solver.lowers_order_at_end:
            order = min(order, num_steps - index)
        corrects = index > 0 and index - 1 not in solver.uncorrected
        steps.append(
            _Step(
                predict=_predictor(sigmas, index, order, solver.type),
                correct=_corrector(sigmas, index, order_before, solver.type) if corrects else None,
            )
        )
        order_before = order
    return steps


def _predictor(sigmas: torch.Tensor, index: int, order: int, solver_type: str) -> _Update:
    """Plan the step from level ``index`` to the next, using the last ``order`` predictions."""
    terms = _Terms.between(sigmas, index, index + 1, [index - back for back in range(1, order)], solver_type)
    if order == 1:
        weights: list[float] = []
    elif order == 2:
        weights = [0.5]
    else:
        weights = torch.linalg.solve(terms.matrix[:-1, :-1], terms.moments[:-1]).tolist()
    return terms.update(weights, now=0.0)


def _corrector(sigmas: torch.Tensor, index: int, order: int, solver_type: str) -> _Update:
    """Plan the step from the level before ``index`` to ``index``, knowing the prediction at ``index``."""
    terms = _Terms.between(sigmas, index - 1, index, [index - 1 - back for back in range(1, order)], solver_type)
    weights = [0.5] if order == 1 else torch.linalg.solve(terms.matrix, terms.moments).tolist()
    return terms.update(weights[:-1], now=weights[-1])


@frozen(kw_only=True)
class _Terms:
    """The quantities of one step in the paper's terms; float32, so that rounding is the reference's too."""

    ratio: torch.Tensor
    alpha: torch.Tensor
    phi: torch.Tensor
    b_h: torch.Tensor
    #: Where earlier levels lie, in units of the step (negative).
    distances: list[torch.Tensor]
    matrix: torch.Tensor
    moments: torch.Tensor

    @classmethod
    def between(cls, sigmas: torch.Tensor, start: int, end: int, earlier: Sequence[int], solver_type: str) -> "_Terms":
        def log_snr(index: int) -> torch.Tensor:
            return torch.log(1 - sigmas[index]) - torch.log(sigmas[index])

        length = log_snr(end) - log_snr(start)
        distances = [(log_snr(index) - log_snr(start)) / length for index in earlier]
        knots = torch.stack([*distances, torch.ones(())])
        minus = -length
        phi = torch.expm1(minus)
        b_h = minus if solver_type == "bh1" else phi
        rows, moments = [], []
        phi_k, factorial = phi / minus - 1, 1
        for power in range(len(knots)):
            rows.append(torch.pow(knots, power))
            moments.append(phi_k * factorial / b_h)
            factorial *= power + 2
            phi_k = phi_k / minus - 1 / factorial
        return cls(
            ratio=sigmas[end] / sigmas[start],
            alpha=1 - sigmas[end],
            phi=phi,
            b_h=b_h,
            distances=distances,
            matrix=torch.stack(rows),
            moments=torch.stack(moments),
        )

    def update(self, weights: Sequence[float], *, now: float) -> _Update:
        factor = -self.alpha * self.b_h
        past = [float(factor * weight / distance) for weight, distance in zip(weights, self.distances, strict=True)]
        return _Update(
            keep=float(self.ratio),
            clean=float(-self.alpha * self.phi),
            past=tuple(past),
            now=float(factor * now) if now else 0.0,
        )
