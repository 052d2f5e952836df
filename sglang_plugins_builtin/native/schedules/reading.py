"""From ``scheduler_config.json`` to settings, or a refusal that names the key. Nothing of torch is imported."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import attrs
from attrs import frozen

from sglang_core import ComponentDescription, ModelLoadError

from .settings import FlowMatchEulerSettings, ScheduleSettings, Solver, UniPCSettings

logger = logging.getLogger(__name__)

T = TypeVar("T")

_EULER, _UNIPC = "FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler"
_NOT_NATIVE = "use --backend diffusers, which has every noise schedule"
_OTHER_SIGMAS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
_EULER_MUST_BE_OFF = (*_OTHER_SIGMAS, "stochastic_sampling", "invert_sigmas")
#: The last three are names of other solvers' types, which stand for bh2.
_SOLVER_TYPES = ("bh1", "bh2", "midpoint", "heun", "logrho")


def schedule_of(component: ComponentDescription, *, shifts_by_size: bool = False) -> ScheduleSettings:
    """Return the settings of a model's scheduler: of the class in the index, whatever the file says, as in diffusers.

    :param shifts_by_size: whether the family tells a schedule the size of the image, which dynamic shifting needs.
    :raises ModelLoadError: if the scheduler or one of its settings is not one of ours.
    """
    config = {**component.config, "_class_name": component.class_name}
    return read_schedule(config, f"{component.name}/scheduler_config.json", shifts_by_size=shifts_by_size)


def load_schedule(component: ComponentDescription, *, shifts_by_size: bool = False) -> ScheduleSettings:
    """Do what ``schedule_of`` does, and say which keys are not used: for loading, since planning reads often."""
    settings = schedule_of(component, shifts_by_size=shifts_by_size)
    if isinstance(settings, FlowMatchEulerSettings):
        known = {field.name for field in attrs.fields(FlowMatchEulerSettings)}.union(_EULER_MUST_BE_OFF)
        ignored = sorted(name for name in component.config.keys() - known if not name.startswith("_"))
        if ignored:
            logger.warning("scheduler_config.json: %s not used", ", ".join(ignored))
    return settings


def read_schedule(config: Mapping[str, object], source: str, *, shifts_by_size: bool = False) -> ScheduleSettings:
    """Return the settings of ``scheduler_config.json``; each run starts its own schedule from them.

    :param source: the file, for messages.
    :param shifts_by_size: as of ``schedule_of``.
    :raises ModelLoadError: if the scheduler or one of its settings is not one of ours.
    """
    name = config.get("_class_name")
    if name == _UNIPC:
        return _read_unipc(_Reader(config, source))
    if name == _EULER:
        return _read_euler(_Reader(config, source), shifts_by_size=shifts_by_size)
    raise ModelLoadError(f"the noise schedule {name} in {source} is not one of the native backend", _NOT_NATIVE)


def _read_unipc(reader: _Reader) -> UniPCSettings:
    reader.must_be_off(*_OTHER_SIGMAS, "use_dynamic_shifting", "thresholding", "solver_p")
    reader.choice("use_flow_sigmas", [True], False)
    reader.choice("prediction_type", ["flow_prediction"], "epsilon")
    reader.choice("predict_x0", [True], True)
    solver = Solver(
        order=reader.choice("solver_order", [1, 2, 3], 2),
        type="bh1" if reader.choice("solver_type", _SOLVER_TYPES, "bh2") == "bh1" else "bh2",
        lowers_order_at_end=reader.choice("lower_order_final", [True, False], True),
        uncorrected=_steps_of(reader, "disable_corrector"),
    )
    if solver.order > 1 and not solver.lowers_order_at_end:
        # The last step ends infinitely far on the solver's scale, where higher orders give NaN.
        raise reader.refusal("lower_order_final")
    return UniPCSettings(
        num_train_timesteps=reader.count("num_train_timesteps", 1000),
        solver=solver,
        flow_shift=reader.factor("flow_shift", 1.0),
        shift_terminal=reader.level("shift_terminal"),
        final_sigmas_type=reader.choice("final_sigmas_type", ["zero", "sigma_min"], "zero"),
    )


def _steps_of(reader: _Reader, key: str) -> tuple[int, ...]:
    steps = reader.config.get(key) or ()
    if not isinstance(steps, list | tuple) or not all(isinstance(step, int) for step in steps):
        raise reader.refusal(key)
    return tuple(steps)


def _read_euler(reader: _Reader, *, shifts_by_size: bool) -> FlowMatchEulerSettings:
    reader.must_be_off(*_EULER_MUST_BE_OFF, *(() if shifts_by_size else ("use_dynamic_shifting",)))
    default = FlowMatchEulerSettings()
    settings = FlowMatchEulerSettings(
        num_train_timesteps=reader.count("num_train_timesteps", default.num_train_timesteps),
        shift=reader.factor("shift", default.shift),
        use_dynamic_shifting=bool(reader.config.get("use_dynamic_shifting")),
        base_shift=reader.number("base_shift", default.base_shift),
        max_shift=reader.number("max_shift", default.max_shift),
        base_image_seq_len=int(reader.number("base_image_seq_len", default.base_image_seq_len)),
        max_image_seq_len=int(reader.number("max_image_seq_len", default.max_image_seq_len)),
        time_shift_type=reader.choice("time_shift_type", ["exponential", "linear"], default.time_shift_type),
        shift_terminal=reader.level("shift_terminal"),
    )
    if settings.use_dynamic_shifting and settings.base_image_seq_len == settings.max_image_seq_len:
        raise reader.refusal("max_image_seq_len")  # no line goes through one point
    return settings


@frozen
class _Reader:
    """A configuration read key by key, with errors that name the key."""

    config: Mapping[str, object]
    source: str

    def number(self, key: str, default: float) -> float:
        value = default if self.config.get(key) is None else self.config[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.refusal(key)
        return value

    def count(self, key: str, default: int) -> int:
        number = int(self.number(key, default))
        if number < 1:
            raise self.refusal(key)
        return number

    def factor(self, key: str, default: float) -> float:
        """Return a number above 0: others make levels that are no numbers, or lie outside of noise and picture."""
        number = self.number(key, default)
        if number <= 0:
            raise self.refusal(key)
        return number

    def level(self, key: str) -> float | None:
        """Return a noise level below 1, ``None`` if there is none."""
        if self.config.get(key) is None:
            return None
        number = self.number(key, 0.0)
        if not 0 <= number < 1:
            raise self.refusal(key)
        return number

    def choice(self, key: str, choices: Sequence[T], default: T) -> T:
        value = self.config.get(key, default)
        for choice in choices:
            if value == choice and isinstance(value, bool) == isinstance(choice, bool):
                return choice
        raise self.refusal(key)

    def must_be_off(self, *keys: str) -> None:
        for key in keys:
            if self.config.get(key):
                raise self.refusal(key)

    def refusal(self, key: str) -> ModelLoadError:
        value = self.config.get(key)
        return ModelLoadError(f"the native backend has no {key}={value!r} as {self.source} asks for", _NOT_NATIVE)
