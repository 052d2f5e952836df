"""Measure start-up, a cold run, the host's cost per step, the native engine and the server, and print tables.

``python tests/benchmarks/run.py [startup] [cold] [steps] [engine] [server] [--runs N]``; without names, all. The whole
process is timed from outside, imports included; medians are quoted, and the two sides of a comparison take turns.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

SGLANG = str(Path(sysconfig.get_path("scripts")) / "sglang")
PROMPT = "a small red circle above a blue square on a white background"
#: The same work with diffusers alone: what a person without the host would write.
PLAIN_SCRIPT = """
import json, sys, torch
from diffusers import DiffusionPipeline
folder, prompt, target = sys.argv[1:]
values = json.load(open(folder + "/sglang.json"))
pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.bfloat16)
pipeline.set_progress_bar_config(disable=True)
image = pipeline(prompt, negative_prompt=values["negative_prompt"], width=values["width"], height=values["height"],
    num_inference_steps=values["num_inference_steps"], true_cfg_scale=values["guidance_scale"],
    generator=torch.Generator().manual_seed(42)).images[0]
image.save(target)
"""


def timed(command: Sequence[str], folder: Path) -> tuple[float, float, str]:
    """Run a command; return wall seconds, peak memory in MB, and stdout. A failure ends the benchmark."""
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    out, error = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{error}")
    return seconds, usage.ru_maxrss / 1024, out


def row(name: str, seconds: Sequence[float], megabytes: Sequence[float], target: str) -> None:
    """Print one line of a table."""
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    print(f"{name:<38} {middle:7.3f} {low:7.3f} {high:7.3f} {statistics.median(megabytes):8.1f}   {target}")


def header(title: str) -> None:
    """Print the heading of a table."""
    print(f"\n{title}\n{'':<38} {'median':>7} {'min':>7} {'max':>7} {'MB':>8}   target")


def startup(runs: int) -> None:
    """Time the commands that must answer at once."""
    header("Start-up, whole process, seconds")
    commands = {
        "python -c pass": ([sys.executable, "-c", "pass"], ""),
        "sglang --help": ([SGLANG, "--help"], "0.25 s, 45 MB"),
        "sglang plugins list": ([SGLANG, "plugins", "list"], "0.25 s, 45 MB"),
        "sglang generate --help": ([SGLANG, "generate", "--help"], ""),
        "sglang explain (embedded model)": ([SGLANG, "explain", "--prompt", PROMPT], "0.5 s"),
    }
    with tempfile.TemporaryDirectory() as folder:
        samples: dict[str, list[tuple[float, float, str]]] = {name: [] for name in commands}
        for turn in range(runs + 1):
            for name, (command, _) in commands.items():
                sample = timed(command, Path(folder))
                if turn:  # the first one warms the file cache
                    samples[name].append(sample)
    for name, (_, target) in commands.items():
        row(name, [sample[0] for sample in samples[name]], [sample[1] for sample in samples[name]], target)


def cold(runs: int) -> None:
    """Time a cold run with the embedded model against the same work with diffusers alone."""
    header("Cold process to the saved file, embedded model, seconds")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = json.loads(timed([SGLANG, "explain", "--json"], folder)[2])["model"]["reference"]
        weights = embedded_folder(model)
        ours = [SGLANG, "generate", "--prompt", PROMPT, "--json"]
        vanilla = [*ours, "--backend", "diffusers"]
        plain = [sys.executable, "-c", PLAIN_SCRIPT, str(weights), PROMPT, str(folder / "plain.png")]
        samples: dict[str, list[tuple[float, float, str]]] = {"ours": [], "vanilla": [], "plain": []}
        for turn in range(runs + 1):
            for name, command in (("ours", ours), ("vanilla", vanilla), ("plain", plain)):
                sample = timed(command, folder)
                if turn:
                    samples[name].append(sample)
    row("sglang generate", [s[0] for s in samples["ours"]], [s[1] for s in samples["ours"]], "5 s")
    row("... --backend diffusers", [s[0] for s in samples["vanilla"]], [s[1] for s in samples["vanilla"]], "8 s")
    row("a script with diffusers alone", [s[0] for s in samples["plain"]], [s[1] for s in samples["plain"]], "")
    ratios = [ours[0] / plain[0] for ours, plain in zip(samples["ours"], samples["plain"], strict=True)]
    print(f"ratio of the first to the last, pair by pair: median {statistics.median(ratios):.2f}   target 0.75")
    last = json.loads(samples["ours"][-1][2])
    print(f"\nWhere the time of the last run went ({last['duration_s']:.2f} s inside the command)")
    for name, entry in last["timings"].items():
        print(f"  {name:<12} {entry['seconds']:7.3f} s  {entry['share']:6.1%}")


def embedded_folder(reference: str) -> Path:
    """Return the folder of an embedded model."""
    import sglang_plugins_builtin.demo_models as demo

    return Path(str(demo.__file__)).parent / "weights" / reference.removeprefix("demo/")


def steps(runs: int) -> None:
    """Time what the host adds to a denoising step: events, progress, control."""
    from sglang_core import StepControl, create_plugin_manager

    print("\nThe host's cost per step, microseconds (a step of 1 s may cost 1,000)")
    count = 20_000
    cases: dict[str, Callable[[], StepControl]] = {
        "no listener": StepControl,
        "every installed plugin listening": lambda: StepControl(create_plugin_manager().listeners()),
    }
    for name, create in cases.items():
        costs = []
        for _ in range(runs):
            control = create()
            started = time.perf_counter()
            with control.stage("denoise", total=count):
                for index in range(1, count + 1):
                    control.step("denoise", index, count)
            costs.append((time.perf_counter() - started) / count * 1e6)
        middle = statistics.median(costs)
        print(f"{name:<38} {middle:9.2f}   {middle / 1e6:.5%} of a 1 s step, target 0.1 %")


def engine(runs: int) -> None:
    """Time the native engine against vanilla diffusers, with random weights in real geometry."""
    from engine_speed import family_table

    for family in ("wan", "qwen-image"):
        family_table(family, rounds=runs)


def server(runs: int) -> None:
    """Time what ``sglang serve`` adds, and what batches bring."""
    from server_speed import TABLES

    print("\nThe server")
    with tempfile.TemporaryDirectory() as folder:
        for table in TABLES.values():
            table(runs, Path(folder))


def main() -> None:
    """Read the command line and print the tables asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", choices=["startup", "cold", "steps", "engine", "server", []])
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    tables = {"startup": startup, "cold": cold, "steps": steps, "engine": engine, "server": server}
    print(f"{os.cpu_count()} processors, Python {sys.version.split()[0]}")
    for name in arguments.tables or tables:
        tables[name](arguments.runs)
    print(f"\npeak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
