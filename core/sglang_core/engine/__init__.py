"""Runs a plan: step control and the in-process engine."""

from .control import PreviewWish, StepControl, describe_timings

__all__ = ["PreviewWish", "StepControl", "describe_timings"]
