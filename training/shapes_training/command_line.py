"""The command line of a training: its stages, and the options that every model has."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import torch

STAGES = ("vae", "text", "transformer", "export", "judge")


class Scores(Protocol):
    """What a judge found."""

    @property
    def overall(self) -> float:
        """The share of results that are entirely right."""

    def as_markdown(self, settings: str) -> str:
        """One line for the model card."""


class Evaluate(Protocol):
    """Draws held-out captions with an exported model and judges them."""

    def __call__(
        self, folder: Path, *, count: int, num_inference_steps: int, guidance_scale: float, sheet: Path | None
    ) -> tuple[Scores, list[str]]:
        """Return the scores and a line for each failure."""


def create_parser(
    package: str,
    description: str | None,
    *,
    model: str,
    results: str,
    vae_minutes: float,
    minutes: float,
    guidance: float,
    count: int,
) -> argparse.ArgumentParser:
    """The arguments of every training, with what each is for.

    :param model: name of the exported folder.
    :param results: what the model makes.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {package}", description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.set_defaults(model_name=model)
    add = parser.add_argument
    add("stage", choices=("all", *STAGES, "restore"), help="what to do; 'all' trains, exports and judges")
    add("--out", type=Path, required=True, help="folder of the checkpoints")
    add("--model", type=Path, help=f"folder of the exported model [OUT/{model}]")
    add("--vae-minutes", type=float, default=vae_minutes, help=f"training time of the autoencoder [{vae_minutes:g}]")
    add("--text-minutes", type=float, default=3.0, help="training time of the text encoder alone [3]")
    add("--minutes", type=float, default=minutes, help=f"training time of the transformer [{minutes:g}]")
    add("--steps", type=int, default=20, help="denoising steps of the exported model [20]")
    add("--guidance", type=float, default=guidance, help=f"its classifier-free guidance scale [{guidance:g}]")
    add("--revision", default="1", help="its version, written to sglang.json [1]")
    add("--count", type=int, default=count, help=f"captions the judge looks at [{count}]")
    add("--min-score", type=float, default=0.0, help=f"fail below this share of right {results} [0]")
    add("--threads", type=int, help="processor threads outside of training processes [all]")
    add("--no-compile", action="store_true", help="do without torch.compile and its C++ compiler")
    return parser


def model_folder(options: argparse.Namespace) -> Path:
    """Return the folder of the exported model."""
    folder: Path = options.model or options.out / options.model_name
    return folder


def measured_scores(out: Path) -> str:
    """Return what the last judgement wrote, for the model card; empty if there was none."""
    path = out / "scores.md"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def run_stages(options: argparse.Namespace, work: Mapping[str, Callable[[], object]], evaluate: Evaluate) -> int:
    """Run what was asked for; return the exit status, 1 if the judge's score is too low.

    :param work: what each stage but ``judge`` does.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    if options.threads:
        torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    for stage in STAGES if options.stage == "all" else (options.stage,):
        if stage == "judge":
            return _judge(options, evaluate)
        work[stage]()
    return 0


def _judge(options: argparse.Namespace, evaluate: Evaluate) -> int:
    lines, overall = [], 0.0
    for scale in (options.guidance, 1.0):
        scores, failures = evaluate(
            model_folder(options),
            count=options.count,
            num_inference_steps=options.steps,
            guidance_scale=scale,
            sheet=options.out / "sheet.png" if scale == options.guidance else None,
        )
        guidance = f"guidance {scale:g}" if scale > 1 else "without guidance"
        lines.append(scores.as_markdown(f"{options.steps} steps, {guidance}"))
        print(lines[-1])
        if scale == options.guidance:
            overall = scores.overall
            print(*failures, sep="\n")
    # Read by the next export, for the model card.
    (options.out / "scores.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0 if overall >= options.min_score else 1
