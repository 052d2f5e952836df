"""Plays recorded sequences of events to the terminal plugin, in a process of its own.

Started as a script: ``recorded_runs.py SCENARIO [option ...]`` with options like ``quiet``, ``json``, ``show``.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from sglang_core import Event, OutputSaved, RunEnded, RunStarted, Settings, StageEnded, StageStarted, StepDone
from sglang_plugins_builtin.terminal import sglang_on_event
from sglang_plugins_builtin.terminal.config import TerminalOptions

RUN = "run-1"
DETAILS = {"seed": 7, "kind": "image", "width": 512, "height": 512, "num_frames": 1, "seconds": 2.0}


def started(options: TerminalOptions) -> RunStarted:
    settings = Settings(values={TerminalOptions: options})
    return RunStarted(run_id=RUN, settings=settings)


def stage(name: str, steps: int, unit: str = "step", seconds: float = 0.5) -> Iterator[Event]:
    yield StageStarted(run_id=RUN, stage=name, total=steps, unit=unit)
    for index in range(1, steps + 1):
        yield StepDone(run_id=RUN, stage=name, index=index, total=steps, unit=unit)
    yield StageEnded(run_id=RUN, stage=name, duration_s=seconds)


def saved(path: str, index: int = 0, **details: object) -> OutputSaved:
    return OutputSaved(run_id=RUN, path=path, index=index, details={**DETAILS, **details})


def ended(outcome: str = "completed") -> RunEnded:
    return RunEnded(run_id=RUN, outcome=outcome, duration_s=4.5)


def completed_run(path: str = "outputs/a.png") -> Iterator[Event]:
    yield from stage("load", 3, unit="component")
    yield from stage("denoise", 20, seconds=3.2)
    yield saved(path)
    yield ended()


def failed_run() -> Iterator[Event]:
    yield from stage("load", 3, unit="component")
    yield StageStarted(run_id=RUN, stage="denoise", total=20)
    for index in range(1, 6):
        yield StepDone(run_id=RUN, stage="denoise", index=index, total=20)
    yield StageEnded(run_id=RUN, stage="denoise", duration_s=1.0, ok=False)
    yield ended("failed")


def play(events: Iterator[Event]) -> None:
    for event in events:
        sglang_on_event(event)


def main(scenario: str, options: list[str]) -> None:
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s: %(message)s")
    paths = [option for option in options if "/" in option]
    chosen = {option: True for option in options if "/" not in option}
    sglang_on_event(started(TerminalOptions(**chosen)))
    if scenario == "completed":
        play(completed_run(*paths))
    elif scenario == "failed":
        play(failed_run())
        print("sglang: the device ran out of memory", file=sys.stderr)
    elif scenario == "halted":  # stays in the middle of a stage until a line arrives on stdin
        play(stage("load", 3, unit="component"))
        sglang_on_event(StageStarted(run_id=RUN, stage="download", total=4_000_000_000, unit="byte"))
        step = StepDone(run_id=RUN, stage="download", index=1_000_000_000, total=4_000_000_000, unit="byte")
        sglang_on_event(step)
        logging.getLogger("sglang").warning("slow mirror")
        print("words of a library", file=sys.stderr)
        sys.stdin.readline()
    elif scenario == "interrupted":  # what the engine does on Ctrl-C: it tells the end, and the error goes on
        try:
            sglang_on_event(StageStarted(run_id=RUN, stage="denoise", total=20))
            Path(os.environ["MARK"]).touch()
            time.sleep(600)  # ended by the signal
        except KeyboardInterrupt:
            sglang_on_event(StageEnded(run_id=RUN, stage="denoise", duration_s=1.0, ok=False))
            sglang_on_event(ended("cancelled"))
            sys.exit(130)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
