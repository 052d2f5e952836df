"""``sglang attention``: which attention backends there are, which work here, and how fast they are."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import click

from sglang_core import ConfigError, PluginManager

if TYPE_CHECKING:
    from sglang_core import AttentionBackend

    from .bench import Timing


@click.command("attention", short_help="List the attention backends, and time them.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--bench", "is_bench", is_flag=True, help="Time those that run here, against the reference.")
@click.option("--model-path", help="Time on the shapes of this model's denoiser (with --bench).")
@click.option("--width", type=click.IntRange(1), help="Width in pixels, with --model-path.")
@click.option("--height", type=click.IntRange(1), help="Height in pixels, with --model-path.")
@click.option("--num-frames", type=click.IntRange(1), help="Frames of a clip, with --model-path.")
@click.option("--tokens", type=click.IntRange(1), help="Tokens in place of those of a model.")
@click.option("--heads", type=click.IntRange(1), help="Heads in place of those of a model.")
@click.option("--head-dim", type=click.IntRange(1), help="Size of a head in place of that of a model.")
@click.option("--precision", type=click.Choice(["bf16", "fp16", "fp32"]), help="Precision to time in.")
@click.option("--device", help="Device to time on.  [default: an accelerator if there is one]")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True, help="Runs; the median counts.")
@click.make_pass_decorator(PluginManager)
def attention(manager: PluginManager, /, as_json: bool, is_bench: bool, **options: Any) -> None:
    """List the attention backends: whether each works here, why not, and what would help.

    With --bench, those that run here are timed on small shapes, on those given, or on those of a model, and compared
    with exact attention in fp32.
    """
    backends = sorted(manager.attention_backends, key=lambda backend: (backend.order is None, backend.order or 0))
    if not is_bench:
        _refuse_without_bench(options)
        rows = [to_json(manager, backend) for backend in backends]
        click.echo(json.dumps({"attention_backends": rows}) if as_json else "\n".join(table(rows)))
        return
    from .bench import bench, shape_of  # torch: more than a second, so only when it is timed

    shape = shape_of(manager, options)
    timings = bench(backends, shape, options["repeats"])
    if as_json:
        click.echo(json.dumps({"shape": shape.to_json(), "timings": [timing.to_json() for timing in timings]}))
        return
    click.echo(shape.describe())
    click.echo("\n".join(_timing_lines(timings)))


def _refuse_without_bench(options: dict[str, Any]) -> None:
    given = [name for name, value in options.items() if value is not None and name != "repeats"]
    if given:
        raise ConfigError(f"--{given[0].replace('_', '-')} says what to time", "add --bench, or leave it out")


def to_json(manager: PluginManager, backend: AttentionBackend) -> dict[str, Any]:
    """Return what the table shows of a backend as JSON values."""
    answer = backend.probe()
    can = backend.capabilities
    return {
        "name": backend.name,
        "aliases": sorted(backend.aliases),
        "plugin": manager.attention_backends.owner(backend.name).split(" ")[0],
        "order": backend.order,
        "available": answer.is_available,
        "reason": answer.reason,
        "remedy": answer.remedy,
        "lossy": backend.is_lossy,
        "parameters": {name: kind.__name__ for name, kind in backend.parameters.items()},
        "capabilities": {
            "devices": list(can.devices),
            "precisions": list(can.precisions),
            "head_dims": list(can.head_dims),
            "max_head_dim": can.max_head_dim,
            "min_compute_capability": can.min_compute_capability,
            "below_compute_capability": can.below_compute_capability,
            "masks": can.has_masks,
            "causal": can.has_causal,
            "cross": can.has_cross,
            "grouped_heads": can.has_grouped_heads,
            "lse": can.has_lse,
        },
    }


def table(rows: Collection[dict[str, Any]]) -> Iterator[str]:
    """Yield one line for each backend, and below it why it does not work here and what would help."""
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        state = "available" if row["available"] else "unavailable"
        choice = "asked for" if row["order"] is None else "automatic"
        yield f"{row['name']:<{width}}  {state:<11}  {choice}  {'lossy' if row['lossy'] else 'exact'}  {limits(row)}"
        if not row["available"]:
            yield f"  {row['reason']}\n  Try: {row['remedy']}"


def limits(row: dict[str, Any]) -> str:
    """Say in words what a backend is limited to."""
    can = row["capabilities"]
    parts = [", ".join(can[name]) for name in ("devices", "precisions") if can[name]]
    least, below = can["min_compute_capability"], can["below_compute_capability"]
    parts += (
        [f"compute capability {least[0]}.{least[1]}" + (f" to below {below[0]}.{below[1]}" if below else "+")]
        if least
        else []
    )
    parts += [f"heads of {', '.join(str(size) for size in can['head_dims'])}"] if can["head_dims"] else []
    parts += [f"heads up to {can['max_head_dim']}"] if can["max_head_dim"] else []
    words = {
        "masks": "masks",
        "causal": "causal",
        "cross": "cross",
        "grouped_heads": "grouped heads",
        "lse": "log-sum-exp",
    }
    missing = [word for name, word in words.items() if not can[name]]
    parts += [f"without {', '.join(missing)}"] if missing else []
    return "; ".join(parts) or "no limits"


def _timing_lines(timings: Collection[Timing]) -> Iterator[str]:
    width = max((len(timing.name) for timing in timings), default=0)
    for timing in timings:
        if timing.median_ms is None:
            yield f"{timing.name:<{width}}  {timing.problem}"
        else:
            yield f"{timing.name:<{width}}  {timing.median_ms:10.2f} ms  relative L2 error {timing.relative_l2:.1e}"
