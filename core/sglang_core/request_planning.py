"""From sampling settings to requests in which every value is decided, or refused by name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve

from .backends import CallDescription
from .errors import ConfigError, RequestError
from .input_planning import OtherBackends, complete_image_size, plan_inputs
from .models import ModelDescription
from .options import Settings
from .options.fields import flag_of
from .options.host import CallOptions, SamplingOptions
from .registry import closest
from .requests import CALL_FIELDS, GenerationRequest

#: Longer prompts are refused: no text encoder reads more, and cutting a prompt silently would lose what it asks for.
MAX_PROMPT_CHARACTERS = 10_000
#: Arguments of a call that other settings stand for.
_OWN_SETTINGS = {
    "prompt": "--prompt",
    "image": "--image-path",
    "mask_image": "--mask-path",
    "generator": "--seed",
    "seed": "--seed",
}
#: Stands in a plan that is made before the prompt is known.
PLACEHOLDER_PROMPT = "(no prompt given)"


def plan_requests(
    model: ModelDescription,
    call: CallDescription,
    settings: Settings,
    *,
    may_lack_inputs: bool = False,
    other_backends: OtherBackends | None = None,
) -> tuple[tuple[GenerationRequest, ...], dict[str, str]]:
    """Return one request for each output, and for each value of the first the reason why it is so.

    :param may_lack_inputs: plan with a placeholder where prompt or image come later.
    :param other_backends: names backends that take an image or a mask, where this call does not.
    :raises RequestError: if the model cannot make what is asked for; the nearest size it can make is named.
    :raises ConfigError: if prompts, seeds or images do not fit together.
    """
    inputs = plan_inputs(call, settings, may_lack=may_lack_inputs, other_backends=other_backends)
    call = inputs.call
    if call.pipeline_class is not None:
        model = evolve(model, pipeline_class=call.pipeline_class)
    settings, extra = _split_call_arguments(model, call, settings)
    options = settings.of(SamplingOptions)
    is_placeholder = may_lack_inputs and not options.prompt and options.prompt_path is None
    prompts = [PLACEHOLDER_PROMPT] if is_placeholder else _prompts(options, settings)
    reasons: dict[str, str] = {}
    values = _call_values(model, call, settings, reasons)
    complete_image_size(values, reasons, inputs)
    _check_numbers(values, call)
    if values.get("negative_prompt") is not None:
        _check_text(values["negative_prompt"], settings.origin("negative_prompt").label)
    template = GenerationRequest(
        prompt=prompts[0], image_path=inputs.images, mask_path=inputs.mask, extra=extra, **values
    )
    requests: list[GenerationRequest] = []
    for index, prompt in enumerate(prompts):
        seeds = _seeds(options, index, len(prompts), settings)
        requests += [evolve(template, prompt=prompt, seed=seed) for seed in seeds]
    reasons["seed"] = settings.origin("seed").label
    return tuple(requests), reasons


def _prompts(options: SamplingOptions, settings: Settings) -> list[str]:
    prompts = list(options.prompt)
    if options.prompt_path is not None:
        if prompts:
            raise ConfigError("both --prompt and --prompt-path are given", "give one of the two")
        prompts = _prompts_of_file(options.prompt_path)
    if not prompts:
        raise ConfigError("there is no prompt", 'say what to make: --prompt "a red circle on a white background"')
    for prompt in prompts:
        _check_prompt(prompt, settings.origin("prompt" if options.prompt else "prompt_path").label)
    return prompts


def _check_prompt(prompt: str, label: str) -> None:
    if not prompt.strip():
        raise RequestError(f"{label}: the prompt is empty", "say what to make")
    _check_text(prompt, label)


def _check_text(prompt: str, label: str) -> None:
    """Refuse what no text encoder reads; empty is fine, since negative prompts may be."""
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise RequestError(
            f"{label}: the prompt has {len(prompt):,} characters, at most {MAX_PROMPT_CHARACTERS:,} are read",
            "shorten the prompt",
        )
    if not prompt.isascii() and any("\ud800" <= character <= "\udfff" for character in prompt):
        raise RequestError(f"{label}: the prompt is not text in UTF-8", "write it in UTF-8")


def _prompts_of_file(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise ConfigError(f"--prompt-path {path}: there is no such file", "check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--prompt-path {path}: cannot be read: {error}", "give a text file in UTF-8") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise ConfigError(f"--prompt-path {path}: the file holds no prompt", "write one prompt a line")
    return prompts


def _seeds(options: SamplingOptions, index: int, num_prompts: int, settings: Settings) -> Sequence[int]:
    """Return the seeds of one prompt's outputs: counted up from one seed, or taken from a list."""
    count, given = options.num_outputs_per_prompt, options.seed
    if len(given) == 1:
        return range(given[0], given[0] + count)
    if len(given) == count:
        return given
    if len(given) == count * num_prompts:
        return given[index * count : (index + 1) * count]
    raise ConfigError(
        f"{settings.origin('seed').label}: {len(given)} seeds for {num_prompts} prompt(s) of {count} output(s)",
        f"give 1, {count} or {count * num_prompts} seeds",
    )


def _call_values(
    model: ModelDescription, call: CallDescription, settings: Settings, reasons: dict[str, str]
) -> dict[str, Any]:
    """Decide each value of the call: the user's, else the model's recommendation, else the pipeline's default."""
    values: dict[str, Any] = {}
    for name in CALL_FIELDS:
        given = getattr(settings.of(SamplingOptions), name)
        if settings.is_given(name) and given is not None:
            _refuse_foreign(name, given, model, call, settings)
            values[name], reasons[name] = given, settings.origin(name).label
        elif _has_default(model, call, name):
            values[name], reasons[name] = model.sampling_defaults[name], f"recommended for {model.reference}"
        elif call.parameters.get(call.spellings.get(name, name)) is not None:
            values[name] = call.parameters[call.spellings.get(name, name)]
            reasons[name] = f"default of {model.pipeline_class}"
    if call.kind == "image":
        values.pop("num_frames", None)
    _settle_guidance(values, reasons, call, settings)
    _complete_size(values, reasons, model, call, settings)
    return {name: value for name, value in values.items() if value is not None}


def _has_default(model: ModelDescription, call: CallDescription, name: str) -> bool:
    if call.image_area is not None and name in {"width", "height"}:  # the image tells
        return False
    return _takes(call, name) and model.sampling_defaults.get(name) is not None


def _takes(call: CallDescription, name: str) -> bool:
    if name == "fps":
        return call.kind == "video"
    return call.takes_any or name in call.spellings or name in call.parameters


def _refuse_foreign(
    name: str, value: object, model: ModelDescription, call: CallDescription, settings: Settings
) -> None:
    if _takes(call, name) or (name == "num_frames" and value == 1):
        return
    what = "a clip" if name in {"fps", "num_frames"} and call.kind == "image" else f"no {name}"
    verb = "does not make" if what == "a clip" else "takes"
    remedy = f"leave {name} out"
    if name == "strength" and call.with_image is not None:
        remedy = "give the image to start from with --image-path, or leave strength out"
    raise RequestError(f"{settings.origin(name).label} does not apply: {model.pipeline_class} {verb} {what}", remedy)


def _settle_guidance(
    values: dict[str, Any], reasons: dict[str, str], call: CallDescription, settings: Settings
) -> None:
    """Make ``guidance_scale`` the one that acts, where the pipeline spells it ``true_cfg_scale``."""
    if call.spellings.get("guidance_scale") != "true_cfg_scale":
        return
    if settings.is_given("true_cfg_scale") and settings.is_given("guidance_scale"):
        raise ConfigError(
            "both --guidance-scale and --true-cfg-scale are given, and mean the same for this model", "give one of them"
        )
    if settings.is_given("true_cfg_scale"):
        values["guidance_scale"], reasons["guidance_scale"] = values["true_cfg_scale"], reasons["true_cfg_scale"]
    values.pop("true_cfg_scale", None)
    reasons.pop("true_cfg_scale", None)


def _complete_size(
    values: dict[str, Any],
    reasons: dict[str, str],
    model: ModelDescription,
    call: CallDescription,
    settings: Settings,
) -> None:
    """Where one side is given, take the other from the shape of the model's default size."""
    default_width, default_height = model.sampling_defaults.get("width"), model.sampling_defaults.get("height")
    if call.image_area is not None or not default_width or not default_height:
        return
    if settings.is_given("width") == settings.is_given("height"):
        return
    grid = call.multiple_of
    given, other = ("width", "height") if settings.is_given("width") else ("height", "width")
    ratio = default_height / default_width if given == "width" else default_width / default_height
    values[other] = max(grid, round(values[given] * ratio / grid) * grid)
    reasons[other] = f"from {given}, in the shape of the model's {default_width}x{default_height}"


def _split_call_arguments(
    model: ModelDescription, call: CallDescription, settings: Settings
) -> tuple[Settings, Mapping[str, Any]]:
    """Return settings in which the call arguments that are request values stand as such, and the other arguments."""
    origin = settings.origin("diffusers_kwargs")
    changes: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, value in settings.of(CallOptions).diffusers_kwargs.items():
        label = f"{origin.label}: {name}"
        if name in CALL_FIELDS:
            if settings.is_given(name):
                raise ConfigError(f"{label} is given as {flag_of(name)} too", "give one of the two")
            changes[name] = value
        elif name in _OWN_SETTINGS:
            raise ConfigError(f"{label} is a setting of its own", f"give it as {_OWN_SETTINGS[name]}")
        elif name in call.parameters or call.takes_any:
            extra[name] = value
        else:
            close = closest(name, call.parameters)
            remedy = f"use {close!r}" if close else f"use one of: {', '.join(sorted(call.parameters))}"
            raise RequestError(f"{label} is no argument of {model.pipeline_class}", remedy)
    origins = {name: evolve(origin, label=f"{origin.label}: {name}") for name in changes}
    return settings.replace_from(origins, changes) if changes else settings, extra


def _check_numbers(values: Mapping[str, Any], call: CallDescription) -> None:
    sides = {name: values[name] for name in ("width", "height") if values.get(name) is not None}
    if any(side % call.multiple_of for side in sides.values()):
        asked = " and ".join(f"{name} {side}" for name, side in sides.items())
        near = " ".join(f"{flag_of(name)} {_nearest(side, call.multiple_of)}" for name, side in sides.items())
        raise RequestError(
            f"this model makes sizes in multiples of {call.multiple_of} pixels, not {asked}", f"use {near}"
        )
    frames, step = values.get("num_frames"), call.frames_step
    if frames is not None and step is not None and (frames - 1) % step:
        near_frames = max(0, round((frames - 1) / step)) * step + 1
        raise RequestError(f"this model makes {step} x n + 1 frames, not {frames}", f"use --num-frames {near_frames}")
    num_steps = values.get("num_inference_steps")
    if num_steps is not None and num_steps < call.min_steps:
        raise RequestError(
            f"num_inference_steps: this model takes at least {call.min_steps} steps, not {num_steps}",
            f"use --num-inference-steps {call.min_steps} or more",
        )


def _nearest(value: int, grid: int) -> int:
    return max(grid, round(value / grid) * grid)
