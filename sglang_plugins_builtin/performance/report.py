"""What ``--perf-dump-path`` writes, and the line that ``--stage-logging`` logs."""

import json
import statistics
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sglang_core import ExecutionPlan, describe_timings, installed_versions

from .recorder import Span
from .writing import write_whole

REPORT_FORMAT = 1


def make_report(
    run_id: str, outcome: str, duration_s: float, spans: Iterable[Span], plan: ExecutionPlan | None
) -> dict[str, Any]:
    """Return the report of one run as JSON values.

    :param outcome: ``completed``, ``failed`` or ``cancelled``.
    :param plan: ``None`` if the run ended before there was one.
    """
    ended = [span for span in spans if span.seconds is not None]
    totals: dict[str, float] = {}
    for span in ended:
        totals[span.stage] = totals.get(span.stage, 0.0) + (span.seconds or 0.0)
    return {
        "format": REPORT_FORMAT,
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "run_id": run_id,
        "outcome": outcome,
        "total_seconds": round(duration_s, 6),
        "stages": [_stage(span, duration_s) for span in ended],
        "totals": describe_timings(totals, duration_s),
        "memory": peak_memory(),
        "model": None if plan is None else _model(plan),
        "backend": None if plan is None else plan.backend.value,
        "plan": None if plan is None else _plan(plan),
        "versions": installed_versions(),
    }


def _stage(span: Span, duration_s: float) -> dict[str, Any]:
    seconds = span.seconds or 0.0
    described: dict[str, Any] = {
        "stage": span.stage,
        "started_s": round(span.started_s, 6),
        "seconds": round(seconds, 6),
        "share": round(seconds / (duration_s or 1.0), 4),
        "ok": span.is_ok,
    }
    if span.step_seconds:
        described["steps"] = describe_steps(span)
    return described


def describe_steps(span: Span) -> dict[str, Any]:
    """Return number, least, median and greatest seconds of a span's steps, and all of them in order."""
    seconds = span.step_seconds
    return {
        "unit": span.unit,
        "count": len(seconds),
        "min_seconds": round(min(seconds), 6),
        "median_seconds": round(statistics.median(seconds), 6),
        "max_seconds": round(max(seconds), 6),
        "seconds": [round(value, 6) for value in seconds],
    }


def _model(plan: ExecutionPlan) -> dict[str, Any]:
    model = plan.model
    return {"reference": model.reference, "revision": model.revision, "pipeline": model.pipeline_class}


def _plan(plan: ExecutionPlan) -> dict[str, Any]:
    """Return what changes how fast a run is."""
    with_weights = {name: each for name, each in plan.components.items() if each.precision.value is not None}
    return {
        "device": plan.device.value,
        "attention": plan.attention.value,
        "component_attention": {key: choice.value for key, choice in plan.component_attention.items()},
        "precision": {name: each.precision.value for name, each in with_weights.items()},
        "residency": {name: each.residency.value for name, each in with_weights.items()},
        "transforms": [choice.value for choice in plan.transforms],
        "num_outputs": len(plan.requests),
        "request": plan.requests[0].to_json(),
        "estimated_peak_bytes": plan.memory.device_peak_bytes,
    }


def peak_memory() -> Mapping[str, int | None]:
    """Return the most memory of this process so far, in bytes; ``None`` where that can not be told."""
    torch = sys.modules.get("torch")
    has_cuda = torch is not None and torch.cuda.is_initialized()
    device_bytes = int(torch.cuda.max_memory_allocated()) if torch is not None and has_cuda else None
    return {"peak_host_bytes": _peak_host_bytes(), "peak_device_bytes": device_bytes}


def _peak_host_bytes() -> int | None:
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write a report as JSON, whole or not at all.

    :raises OSError: if it cannot be written.
    """
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    write_whole(path, lambda hidden: hidden.write_text(text, encoding="utf-8"))


def stage_line(span: Span) -> str:
    """Return one line about a stage that is over."""
    outcome = "took" if span.is_ok else "stopped after"
    if not span.step_seconds:
        return f"stage {span.stage} {outcome} {span.seconds or 0.0:.3f} s"
    count, median_s = len(span.step_seconds), statistics.median(span.step_seconds)
    steps = f"{count} {span.unit}{'s' if count != 1 else ''}, median {median_s:.3f} s"
    return f"stage {span.stage} {outcome} {span.seconds or 0.0:.3f} s ({steps})"
