"""Command line: ``python -m shapes_training all|vae|transformer|export|judge|restore --out DIR``.

``--out`` holds the checkpoints. A stage that finds its own checkpoint goes on from it;
when its time is used up it has nothing to do, and a larger ``--minutes`` gives it more.
``restore`` writes the checkpoints of an exported model to ``--out``.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from .evaluation import evaluate
from .export import Defaults, export
from .restore import restore
from .train_transformer import TransformerConfig, train_transformer
from .train_vae import VaeConfig, load_trained_vae, train_vae

STAGES = ("vae", "transformer", "export", "judge")


def create_parser() -> argparse.ArgumentParser:
    """The arguments, with what each is for."""
    parser = argparse.ArgumentParser(
        prog="python -m shapes_training", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "stage", choices=("all", *STAGES, "restore"), help="what to do; 'all' trains, exports and judges"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--model", type=Path, help="folder of the exported model [OUT/shapes-image]")
    parser.add_argument("--vae-minutes", type=float, default=25.0, help="training time of the autoencoder [25]")
    parser.add_argument("--minutes", type=float, default=70.0, help="training time of the transformer [70]")
    parser.add_argument("--steps", type=int, default=20, help="denoising steps of the exported model [20]")
    parser.add_argument("--guidance", type=float, default=4.0, help="its true guidance scale [4]")
    parser.add_argument("--revision", default="1", help="its version, written to sglang.json [1]")
    parser.add_argument("--count", type=int, default=200, help="captions the judge looks at [200]")
    parser.add_argument("--min-score", type=float, default=0.0, help="fail below this share of right pictures [0]")
    parser.add_argument("--threads", type=int, help="processor threads [all]")
    parser.add_argument("--bfloat16", action="store_true", help="train the transformer in bfloat16 (see the docs)")
    parser.add_argument("--no-compile", action="store_true", help="do without torch.compile and its C++ compiler")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages; return the exit status, 1 if the judge's score is too low."""
    options = create_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    if options.threads:
        torch.set_num_threads(options.threads)
    out: Path = options.out
    folder: Path = options.model or out / "shapes-image"
    vae_config = VaeConfig(minutes=options.vae_minutes, use_compile=not options.no_compile)
    config = TransformerConfig(
        minutes=options.minutes, use_compile=not options.no_compile, use_bfloat16=options.bfloat16
    )
    defaults = Defaults(num_inference_steps=options.steps, guidance_scale=options.guidance, revision=options.revision)
    stages = STAGES if options.stage == "all" else (options.stage,)
    if "restore" in stages:
        restore(config, vae_config, folder, out)
    if "vae" in stages:
        train_vae(vae_config, out)
    if "transformer" in stages:
        train_transformer(config, load_trained_vae(vae_config, out), out)
    if "export" in stages:
        scores = out / "scores.md"
        export(
            vae_config,
            config,
            defaults,
            out,
            folder,
            scores.read_text(encoding="utf-8") if scores.exists() else "",
        )
    if "judge" in stages:
        return _judge(folder, out, options.count, options.steps, options.guidance, options.min_score)
    return 0


def _judge(folder: Path, out: Path, count: int, steps: int, guidance: float, min_score: float) -> int:
    lines, overall = [], 0.0
    for scale in (guidance, 1.0):
        scores, failures = evaluate(
            folder,
            count=count,
            num_inference_steps=steps,
            guidance_scale=scale,
            sheet=out / "sheet.png" if scale == guidance else None,
        )
        name = f"{steps} steps, guidance {scale:g}" if scale > 1 else f"{steps} steps, without guidance"
        lines.append(scores.as_markdown(name))
        print(lines[-1])
        if scale == guidance:
            overall = scores.overall
            print(*failures, sep="\n")
    # Read by the next export, for the model card.
    (out / "scores.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0 if overall >= min_score else 1


if __name__ == "__main__":
    sys.exit(main())
