"""Which requests may run together, and what a request costs."""

import json
from collections.abc import Hashable

from ..options.host import RunOptions
from ..planning_types import ExecutionPlan
from ..requests import GenerationRequest

#: What may differ between requests that run together.
_FREE_FIELDS = ("prompt", "negative_prompt", "seed")


def batch_key(plan: ExecutionPlan) -> Hashable | None:
    """Return what is equal for planned requests that may run together; ``None`` if this one has to run alone.

    Everything but prompts and seed counts: the values of the call, the format of the output, the deadline. A request
    that starts from images or makes several outputs runs alone.
    """
    if len(plan.requests) != 1:
        return None
    request = plan.requests[0]
    if request.image_path:
        return None
    values = {name: value for name, value in request.to_json().items() if name not in _FREE_FIELDS}
    # Guided requests run two predictions a step, unguided ones a single one: whether there is a negative prompt counts.
    values["is_negated"] = request.negative_prompt is not None
    values["output"] = (plan.output.extension, plan.output.compression, plan.output.x264_preset)
    values["timeout_s"] = plan.settings.of(RunOptions).timeout_s
    values["followed"] = followed_settings(plan)
    try:
        return json.dumps(values, sort_keys=True)
    except (TypeError, ValueError):  # a value of diffusers_kwargs that is no JSON
        return None


def followed_settings(plan: ExecutionPlan) -> tuple[tuple[str, str], ...]:
    """Return what is equal for planned requests that find the pipeline in the same state."""
    settings = plan.settings
    groups = [group for group in settings.groups if group.is_per_request]
    return tuple(
        (field.name, repr(getattr(settings.of(group.settings), field.name)))
        for group in groups
        for field in group.fields
    )


def plan_cost(plan: ExecutionPlan) -> float:
    """Return the size of a planned run: steps times pixels times frames, summed over its outputs."""
    return sum(_request_cost(request) for request in plan.requests)


def _request_cost(request: GenerationRequest) -> float:
    pixels = (request.width or 1024) * (request.height or 1024)
    return float((request.num_inference_steps or 30) * pixels * (request.num_frames or 1))
