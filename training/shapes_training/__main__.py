"""Command line: ``python -m shapes_training all|vae|text|transformer|export|judge|restore --out DIR``.

``--out`` holds the checkpoints. A stage that finds its own checkpoint goes on from it;
when its time is used up it has nothing to do, and a larger ``--minutes`` gives it more.
``restore`` writes the checkpoints of an exported model to ``--out``.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence

from . import command_line
from .evaluation import evaluate
from .export import Defaults, export
from .restore import restore
from .train_text import TextConfig, train_text
from .train_transformer import TransformerConfig, train_transformer
from .train_vae import VaeConfig, train_vae


def create_parser() -> ArgumentParser:
    """The arguments, with what each is for."""
    parser = command_line.create_parser(
        "shapes_training",
        __doc__,
        model="shapes-image",
        results="pictures",
        vae_minutes=25,
        minutes=70,
        guidance=Defaults().guidance_scale,
        count=200,
    )
    parser.add_argument("--bfloat16", action="store_true", help="train the transformer in bfloat16 (see the docs)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages; return the exit status, 1 if the judge's score is too low."""
    options = create_parser().parse_args(arguments)
    out, folder, use_compile = options.out, command_line.model_folder(options), not options.no_compile
    vae = VaeConfig(minutes=options.vae_minutes, use_compile=use_compile)
    text = TextConfig(minutes=options.text_minutes, use_compile=use_compile)
    config = TransformerConfig(minutes=options.minutes, use_compile=use_compile, use_bfloat16=options.bfloat16)
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
