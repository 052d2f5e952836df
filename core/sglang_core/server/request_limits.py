"""What one request may ask for at most."""

from collections.abc import Mapping
from typing import Any

from ..errors import RequestError
from ..options.host import RunOptions
from ..options.server import ServerOptions
from ..planning_types import ExecutionPlan

#: Settings that name files or folders of the server's machine, which no client chooses; nor what only a program in
#: this process could take.
_SERVERS_OWN = frozenset(
    {"prompt_path", "output_path", "output_file_path", "save_output", "return_frames", "log_level"}
)


def check_settings(options: ServerOptions, values: Mapping[str, Any]) -> None:
    """Refuse what must not even be planned: paths of this machine, and numbers of outputs that would fill its memory.

    :raises RequestError: naming the field.
    """
    for name in values:
        if name in _SERVERS_OWN:
            raise RequestError(f"{name} can not be chosen by a request", "leave it out")
    count = values.get("num_outputs_per_prompt", 1)
    prompts = values.get("prompt")
    total = (count if isinstance(count, int) else 1) * (len(prompts) if isinstance(prompts, list | tuple) else 1)
    if total > options.max_outputs:
        raise RequestError(
            f"num_outputs_per_prompt asks for {total:,} outputs, this server makes at most {options.max_outputs:,} "
            "for one request",
            "ask for fewer, or send several requests",
        )


def check_plan(options: ServerOptions, plan: ExecutionPlan, timeout_s: float | None) -> None:
    """Refuse requests that are larger than the server allows.

    :param timeout_s: the server's own limit for a run, which a request may only make shorter.
    :raises RequestError: naming the field, the value and the limit.
    """
    asked_s = plan.settings.of(RunOptions).timeout_s
    if timeout_s is not None and asked_s is not None and asked_s > timeout_s:
        raise RequestError(
            f"timeout_s is {asked_s:g}, this server takes at most {timeout_s:g}", f"ask for {timeout_s:g}"
        )
    for request in plan.requests:
        width, height = request.width or 0, request.height or 0
        if width * height > options.max_pixels:
            raise RequestError(
                f"width and height make {width * height:,} pixels, this server makes at most {options.max_pixels:,}",
                "ask for a smaller size",
            )
        for name, limit in (("num_frames", options.max_frames), ("num_inference_steps", options.max_steps)):
            value = getattr(request, name)
            if value is not None and value > limit:
                raise RequestError(f"{name} is {value:,}, this server takes at most {limit:,}", f"ask for {limit:,}")
