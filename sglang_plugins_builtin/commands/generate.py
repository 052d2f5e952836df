"""``sglang generate``: make what is asked for, and exit."""

import json
from typing import TYPE_CHECKING, Any

import click

from sglang_core import PluginManager, Settings, SettingsCommand, cancel_on_signals, pass_settings

from .repeat import with_receipt

if TYPE_CHECKING:
    from sglang_core import GenerationOutput, GenerationResult


@click.command("generate", cls=SettingsCommand, short_help="Make an image or a clip, and exit.")
@pass_settings
def generate(settings: Settings) -> None:
    """Make images or clips from a prompt, save them, and exit.

    \b
    sglang generate --prompt "a small red circle above a blue square on a white background"
    """  # noqa: D301 - \b is click's mark for lines to keep
    from sglang_core import create_control, generate_outputs  # only when used, so that --help is instant

    manager = click.get_current_context().ensure_object(PluginManager)
    settings = with_receipt(manager, settings)
    control = create_control(manager, settings)
    with cancel_on_signals(control):
        result = generate_outputs(manager, settings, control)
    if settings.is_set("json"):
        click.echo(json.dumps(_result_to_json(result), ensure_ascii=False))


def _result_to_json(result: "GenerationResult") -> dict[str, Any]:
    from sglang_core import describe_timings

    return {
        "outputs": [_output_to_json(output) for output in result.outputs],
        "duration_s": round(result.duration_s, 3),
        "timings": describe_timings(result.timings_s, result.duration_s),
    }


def _output_to_json(output: "GenerationOutput") -> dict[str, Any]:
    return {
        "path": None if output.path is None else str(output.path),
        "url": output.url,
        "object_key": output.object_key,
        "upload_error": output.upload_error,
        "prompt": output.prompt,
        "seed": output.seed,
        "kind": output.kind,
        "width": output.width,
        "height": output.height,
        "num_frames": output.num_frames,
        "receipt": dict(output.receipt),
    }
