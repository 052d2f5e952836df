"""A first plugin: a command, a setting, and a step after a model is loaded."""

import logging

import click
from attrs import frozen

from sglang_core import Availability, ExecutionPlan, LoadedPipeline, OptionGroup, PipelineTransform, hookimpl, option

logger = logging.getLogger(__name__)


@frozen(kw_only=True)
class HelloOptions:
    """Hello."""

    count_parameters: bool = option(
        default=False, env="SGLANG_HELLO_COUNT_PARAMETERS", help="Say how large each component is once it is loaded."
    )


class CountParameters:
    """Logs the number of parameters of each component."""

    name = "count-parameters"
    order = 900  # behind whatever changes the weights

    def probe(self) -> Availability:
        """Say that it works everywhere."""
        return Availability.yes()

    def wanted(self, plan: ExecutionPlan) -> str | None:
        """Return the flag, key or variable that asks for it."""
        is_set = plan.settings.of(HelloOptions).count_parameters
        return plan.settings.origin("count_parameters").label if is_set else None

    def apply(self, pipeline: LoadedPipeline, plan: ExecutionPlan) -> None:
        """Log one line for each component; nothing is changed."""
        for name, component in pipeline.components.items():
            if hasattr(component, "parameters"):  # tokenizers and schedulers have none
                logger.info("%s: %s parameters", name, f"{sum(p.numel() for p in component.parameters()):,}")


@click.command()
@click.argument("name", default="world")
def hello(name: str) -> None:
    """Greet NAME."""
    click.echo(f"hello, {name}")


@hookimpl
def sglang_register_options() -> list[OptionGroup]:
    return [OptionGroup(name="hello", settings=HelloOptions, is_execution=True)]


@hookimpl
def sglang_register_pipeline_transforms() -> list[PipelineTransform]:
    return [CountParameters()]


@hookimpl
def sglang_register_commands() -> list[click.Command]:
    return [hello]
