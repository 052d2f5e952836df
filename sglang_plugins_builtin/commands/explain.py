"""``sglang explain``: the plan of a run, without running it."""

import json

import click

from sglang_core import PluginManager, Settings, SettingsCommand, pass_settings

from .repeat import with_receipt


@click.command("explain", cls=SettingsCommand, short_help="Show what 'generate' would do, and why.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as one JSON object.")
@pass_settings
def explain(settings: Settings, as_json: bool) -> None:
    """Show the plan of a run and the reason of every choice, without reading weights.

    Takes the settings of 'generate'. Without a prompt, the plan is made for a placeholder.
    """
    from sglang_core import plan_lines, plan_run  # the planner: only when it is used, so that --help is instant

    manager = click.get_current_context().ensure_object(PluginManager)
    settings = with_receipt(manager, settings)
    plan = plan_run(manager, settings, may_lack_inputs=True).plan
    if as_json:
        click.echo(json.dumps(plan.to_json(), ensure_ascii=False))
        return
    for line in plan_lines(plan):
        click.echo(line)
