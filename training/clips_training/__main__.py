"""Command line: ``python -m clips_training all|vae|text|transformer|export|judge|restore --out DIR``.

``--out`` holds the checkpoints. A stage that finds its own checkpoint goes on from it;
when its time is used up it has nothing to do, and a larger ``--minutes`` gives it more.
``restore`` writes the checkpoints of an exported model to ``--out``.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence

from shapes_training import command_line

from .evaluation import evaluate
from .export import Defaults, export
from .restore import restore
from .train_text import TextConfig, train_text
from .train_transformer import TransformerConfig, train_transformer
from .train_vae import VaeConfig, train_vae


def create_parser() -> ArgumentParser:
    """The arguments, with what each is for."""
    parser = command_line.create_parser(
        "clips_training",
        __doc__,
        model="shapes-video",
        results="clips",
        vae_minutes=30,
        minutes=60,
        guidance=Defaults().guidance_scale,
        count=100,
    )
    parser.add_argument("--processes", type=int, default=2, help="training processes, which share the cores [2]")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages; return the exit status, 1 if the judge's score is too low."""
    options = create_parser().parse_args(arguments)
    out, folder, use_compile = options.out, command_line.model_folder(options), not options.no_compile
    vae = VaeConfig(
        minutes=options.vae_minutes,
        num_processes=options.processes,
        use_compile=use_compile,
    )
    text = TextConfig(minutes=options.text_minutes)
    config = TransformerConfig(minutes=options.minutes, num_processes=options.processes, use_compile=use_compile)
    defaults = Defaults(num_inference_steps=options.steps, guidance_scale=options.guidance, revision=options.revision)
    work = {
        "restore": lambda: restore(config, vae, folder, out),
        "vae": lambda: train_vae(vae, out),
        "text": lambda: train_text(text, config.network, out),
        "transformer": lambda: train_transformer(config, vae, out),
        "export": lambda: export(vae, config, defaults, out, folder, command_line.measured_scores(out)),
    }
    return command_line.run_stages(options, work, evaluate)


if __name__ == "__main__":
    sys.exit(main())
