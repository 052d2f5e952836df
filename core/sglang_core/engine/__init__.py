"""Runs a plan: step control and the in-process engine."""

from .control import StepControl, describe_timings

__all__ = ["StepControl", "describe_timings"]
