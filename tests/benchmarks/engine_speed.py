"""Measure the native engine against vanilla diffusers: steps, text encoding, decoding, memory.

``python tests/benchmarks/engine_speed.py [wan] [qwen-image] [--device cuda] [--layers N] [--rounds N] [--compile]``.
Both sides hold the same random weights in the real geometry and take turns in one process; medians are quoted, and the
ratio is that of the medians. On CUDA steps are measured with ``--enable-cuda-graphs`` too, against those without. Peak
memory is measured in a process for each side.
"""

import argparse
import contextlib
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from engine_models import QWEN_LAYERS, WAN_LAYERS, load_vanilla, make_qwen_image, make_wan

from sglang_core import Event, Generator, RequestCancelledError, StageEnded, StepDone

Times = dict[str, list[float]]
#: Width, height, frames: 780 and 3120 tokens of Wan, 1024 and 4096 of Qwen-Image.
WAN_SIZES = ((416, 480, 1), (832, 480, 5))
QWEN_SIZES = ((512, 512, 1), (1024, 1024, 1))
TARGETS = {"wan": 1.35, "qwen-image": 1.25}
STEPS = 4
#: About as long as the caption of a picture; the numbers change from run to run and size to size: no cache answers.
PROMPT = "a small red fox in the snow {} {}"


class Native:
    """The engine, as a user of the Python API has it."""

    def __init__(self, folder: Path, device: str, **settings: Any) -> None:
        self._generator = Generator.from_pretrained(str(folder), backend="sglang", device=device, **settings)
        self._device = device

    def steps(self, size: tuple[int, int, int], turn: int) -> Times:
        """Return the seconds of each step after the first, and of text encoding; nothing is decoded."""
        marks: list[float] = []
        times: Times = {"encode": [], "step": []}

        def listen(event: Event) -> None:
            if isinstance(event, StageEnded) and event.stage == "encode":
                times["encode"].append(event.duration_s)
            if isinstance(event, StepDone) and event.stage == "denoise":
                synchronize(self._device)
                marks.append(time.perf_counter())
                if event.index == event.total:
                    raise RequestCancelledError

        with contextlib.suppress(RequestCancelledError):
            self._run(size, turn, STEPS, listen)
        times["step"] = [after - before for before, after in itertools.pairwise(marks)]
        return times

    def decode(self, size: tuple[int, int, int], turn: int) -> Times:
        """Return the seconds of decoding."""
        times: Times = {"decode": []}

        def listen(event: Event) -> None:
            if isinstance(event, StageEnded) and event.stage == "decode":
                times["decode"].append(event.duration_s)

        self._run(size, turn, 1, listen)
        return times

    def _run(self, size: tuple[int, int, int], turn: int, steps: int, listen: Callable[[Event], None]) -> None:
        width, height, frames = size
        clip = {"num_frames": frames} if self._generator.plan.kind == "video" else {}
        self._generator.generate(
            PROMPT.format(turn, width),
            negative_prompt=f"blurred {turn} {width}",
            width=width,
            height=height,
            num_inference_steps=steps,
            guidance_scale=4.0,
            save_output=False,
            listeners=(listen,),
            **clip,
        )


class Vanilla:
    """The same folder in the pipeline of diffusers."""

    def __init__(self, folder: Path, device: str) -> None:
        self.pipeline = load_vanilla(folder, device)
        self._device = device

    def steps(self, size: tuple[int, int, int], turn: int) -> Times:
        """Return the seconds of each step after the first, and of text encoding."""
        marks: list[float] = []

        def listen(pipeline: Any, index: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
            synchronize(self._device)
            marks.append(time.perf_counter())
            return values

        encode = _timed(self.pipeline, "encode_prompt", self._device)
        self._run(size, turn, STEPS, output_type="latent", callback_on_step_end=listen)
        steps = [after - before for before, after in itertools.pairwise(marks)]
        return {"encode": [sum(encode)], "step": steps}

    def decode(self, size: tuple[int, int, int], turn: int) -> Times:
        """Return the seconds of decoding."""
        decode = _timed(self.pipeline.vae, "decode", self._device)
        self._run(size, turn, 1)
        return {"decode": [sum(decode)]}

    def _run(self, size: tuple[int, int, int], turn: int, steps: int, **settings: Any) -> None:
        width, height, frames = size
        is_clip = hasattr(self.pipeline, "encode_prompt") and type(self.pipeline).__name__.startswith("Wan")
        settings |= {"num_frames": frames, "guidance_scale": 4.0} if is_clip else {"true_cfg_scale": 4.0}
        self.pipeline(
            PROMPT.format(turn, width),
            negative_prompt=f"blurred {turn} {width}",
            width=width,
            height=height,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(turn),
            **settings,
        )


def _timed(owner: Any, name: str, device: str) -> list[float]:
    """Time every call of a method until the next one is asked for; return the list that fills."""
    original = getattr(owner, f"_plain_{name}", getattr(owner, name))
    setattr(owner, f"_plain_{name}", original)
    seconds: list[float] = []

    def call(*args: Any, **kwargs: Any) -> Any:
        synchronize(device)
        started = time.perf_counter()
        result = original(*args, **kwargs)
        synchronize(device)
        seconds.append(time.perf_counter() - started)
        return result

    setattr(owner, name, call)
    return seconds


def synchronize(device: str) -> None:
    """Wait for what was given to the device."""
    if device != "cpu":
        torch.accelerator.synchronize()


def compare(
    title: str, measure: str, sides: dict[str, Any], size: tuple[int, int, int], rounds: int
) -> dict[str, Times]:
    """Let two sides take turns, the one that is compared with first; return their times."""
    found: dict[str, Times] = {name: {} for name in sides}
    for turn in range(rounds + 1):
        for name, side in sides.items():
            for kind, seconds in getattr(side, measure)(size, turn).items():
                if turn:  # the first round warms up
                    found[name].setdefault(kind, []).extend(seconds)
    both = list(found.values())
    for kind in both[0]:
        theirs, ours = (statistics.median(times[kind]) for times in both)
        print(f"{title:<34} {kind:<8} {theirs * 1e3:10.1f} {ours * 1e3:10.1f} {theirs / ours:7.2f}", flush=True)
    return found


def make(family: str, folder: Path, layers: int, device: str) -> Path:
    """Write the model of a family."""
    if family == "wan":
        return make_wan(folder, layers=layers, text_layers=2 if device == "cpu" else 24, device=device)
    import sglang_plugins_builtin.demo_models as demo

    tokenizer = Path(str(demo.__file__)).parent / "weights" / "shapes-image" / "tokenizer"
    return make_qwen_image(folder, layers=layers, tokenizer_folder=tokenizer, device=device)


def family_table(
    family: str,
    *,
    rounds: int = 5,
    device: str = "cpu",
    layers: int | None = None,
    is_short: bool = False,
    is_compiled: bool = False,
) -> None:
    """Measure one family and print its lines.

    :param layers: of the transformer; on a CPU a few, else all of them.
    :param is_short: measure steps at the first size only.
    """
    whole = WAN_LAYERS if family == "wan" else QWEN_LAYERS
    few = 4 if family == "wan" else 2
    layers = layers or (few if device == "cpu" else whole)
    with tempfile.TemporaryDirectory() as temporary:
        folder = make(family, Path(temporary) / "model", layers, device)
        print(f"\n{family}: {layers} of {whole} layers, bf16, {device}, {torch.get_num_threads()} threads")
        print(f"{'milliseconds, medians':<43} {'vanilla':>10} {'native':>10} {'ratio':>7}   target {TARGETS[family]}")
        settings = {"enable_torch_compile": True} if is_compiled else {}
        sides = {"vanilla": Vanilla(folder, device), "native": Native(folder, device, **settings)}
        sizes = WAN_SIZES if family == "wan" else QWEN_SIZES
        for size in sizes[: 1 if is_short else None]:
            compare(f"{size[0]}x{size[1]}, {size[2]} frame(s)", "steps", sides, size, rounds)
        decoded = (128, 128, 5 if family == "wan" else 1)
        compare(f"{decoded[0]}x{decoded[1]}, {decoded[2]} frame(s)", "decode", sides, decoded, rounds)
        del sides
        if device.startswith("cuda") and not is_compiled:
            graphs_lines(folder, device, sizes, rounds)
        peaks = {side: peak_memory(side, folder, device, sizes[0]) for side in ("vanilla", "native")}
        ratio = peaks["native"] / peaks["vanilla"]
        print(f"{'peak memory of the process, MB':<43} {peaks['vanilla']:10.0f} {peaks['native']:10.0f} {ratio:7.2f}")


def graphs_lines(folder: Path, device: str, sizes: Sequence[tuple[int, int, int]], rounds: int) -> None:
    """Measure steps with and without recordings; of four steps one is recorded, so the median is of replayed ones."""
    print(f"{'native, and with --enable-cuda-graphs':<43} {'plain':>10} {'recorded':>10} {'ratio':>7}")
    sides = {"plain": Native(folder, device), "recorded": Native(folder, device, enable_cuda_graphs=True)}
    for size in sizes:
        compare(f"{size[0]}x{size[1]}, {size[2]} frame(s)", "steps", sides, size, rounds)


def peak_memory(side: str, folder: Path, device: str, size: tuple[int, int, int]) -> float:
    """Return the megabytes that a process of its own takes for one run (of the accelerator, where there is one)."""
    words = [sys.executable, __file__, "--peak-of", side, "--model", str(folder), "--device", device]
    done = subprocess.run([*words, "--size", json.dumps(size)], stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def run_once(options: argparse.Namespace) -> None:
    """Run one side once, and print the megabytes it took."""
    side = (Vanilla if options.peak_of == "vanilla" else Native)(options.model, options.device)
    side.steps(tuple(json.loads(options.size)), 0)
    if options.device == "cpu":
        print(high_water_mark())
    else:
        print(torch.cuda.max_memory_allocated() / 2**20)


def high_water_mark() -> float:
    """Return the most megabytes this process has held; what ``getrusage`` says begins with those of its parent."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Read the command line and print the tables asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", default=["wan", "qwen-image"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--short", action="store_true", help="the first size only")
    parser.add_argument("--compile", action="store_true", help="native with --enable-torch-compile")
    parser.add_argument("--peak-of", choices=["vanilla", "native"], help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--size", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_of:
        run_once(options)
        return
    for family in options.families:
        family_table(
            family,
            rounds=options.rounds,
            device=options.device,
            layers=options.layers,
            is_short=options.short,
            is_compiled=options.compile,
        )


if __name__ == "__main__":
    main()
