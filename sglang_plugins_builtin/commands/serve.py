"""``sglang serve``: keep a model loaded and answer over HTTP."""

import click

from sglang_core import PluginManager, Settings, SettingsCommand, pass_settings


@click.command("serve", cls=SettingsCommand, short_help="Keep a model loaded and answer over HTTP.")
@pass_settings
def serve(settings: Settings) -> None:
    """Keep a model loaded and answer over HTTP, until Ctrl-C or SIGTERM.

    \b
    sglang serve --model-path demo/shapes-image --port 30000

    What a request asks for (prompt, size, steps, seed) comes with the request.
    """  # noqa: D301 - \b is click's mark for lines to keep
    from sglang_core import run_server  # only when used, so that --help is instant

    run_server(click.get_current_context().ensure_object(PluginManager), settings)
