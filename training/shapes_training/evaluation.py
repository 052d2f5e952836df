"""Let the judge look at what an exported folder draws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from attrs import frozen
from diffusers import DiffusionPipeline
from numpy.typing import NDArray
from PIL import Image

from .captions import held_out_captions
from .drawing import Scene
from .judge import Verdict, judge


@frozen(kw_only=True)
class Scores:
    """Share of right pictures; the attributes are counted over all pictures."""

    count: int
    overall: float
    single: float
    pair: float
    attributes: dict[str, float]

    def as_markdown(self, settings: str) -> str:
        """Lines for the model card."""
        attributes = ", ".join(f"{name} {share:.1%}" for name, share in self.attributes.items())
        return (
            f"- {settings}: {self.overall:.1%} of {self.count} pictures entirely right "
            f"({self.single:.1%} with one shape, {self.pair:.1%} with two); {attributes}."
        )


def generate(
    folder: Path,
    captions: Sequence[str],
    *,
    num_inference_steps: int,
    guidance_scale: float,
    size: int = 128,
    batch_size: int = 25,
    seed: int = 0,
) -> list[NDArray[np.uint8]]:
    """Draw captions with the plain diffusers pipeline; picture i has the seed ``seed + i``."""
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    pictures: list[NDArray[np.uint8]] = []
    for start in range(0, len(captions), batch_size):
        batch = list(captions[start : start + batch_size])
        generators = [torch.Generator().manual_seed(seed + start + index) for index in range(len(batch))]
        images: list[Image.Image] = pipeline(
            prompt=batch,
            negative_prompt=[" "] * len(batch) if guidance_scale > 1 else None,
            true_cfg_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
            height=size,
            width=size,
            generator=generators,
        ).images
        pictures += [np.asarray(image.convert("RGB")) for image in images]
    return pictures


def score(scenes: Sequence[Scene], verdicts: Sequence[Verdict]) -> Scores:
    """Count what the judge found."""
    passed = np.array([verdict.passed for verdict in verdicts])
    is_pair = np.array([scene.relation is not None for scene in scenes])
    names = ("background", "count", "colour", "shape", "size", "position")
    return Scores(
        count=len(passed),
        overall=float(passed.mean()),
        single=float(passed[~is_pair].mean()) if (~is_pair).any() else float("nan"),
        pair=float(passed[is_pair].mean()) if is_pair.any() else float("nan"),
        attributes={name: float(np.mean([getattr(verdict, name) for verdict in verdicts])) for name in names},
    )


def evaluate(
    folder: Path,
    *,
    count: int,
    num_inference_steps: int,
    guidance_scale: float,
    sheet: Path | None = None,
) -> tuple[Scores, list[str]]:
    """Judge held-out captions; return the scores and a line about each failure.

    :param sheet: where to write a contact sheet of the first pictures, if anywhere.
    """
    captions, scenes = zip(*held_out_captions(count), strict=True)
    pictures = generate(folder, captions, num_inference_steps=num_inference_steps, guidance_scale=guidance_scale)
    verdicts = [judge(picture, scene) for picture, scene in zip(pictures, scenes, strict=True)]
    if sheet is not None:
        write_sheet(pictures[:60], sheet)
    failures = [
        f"{index}: {caption}: wrong {', '.join(wrong_attributes(verdict))}"
        for index, (caption, verdict) in enumerate(zip(captions, verdicts, strict=True))
        if not verdict.passed
    ]
    return score(scenes, verdicts), failures


def wrong_attributes(verdict: Verdict) -> list[str]:
    """The names of what is wrong."""
    names = ("background", "count", "colour", "shape", "size", "position")
    return [name for name in names if not getattr(verdict, name)]


def write_sheet(pictures: Sequence[NDArray[np.uint8]], path: Path, columns: int = 10) -> None:
    """Write pictures of one size side by side as a PNG."""
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (height + 2), columns * (width + 2), 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        top, left = index // columns * (height + 2), index % columns * (width + 2)
        sheet[top : top + height, left : left + width] = picture
    Image.fromarray(sheet).save(path)
