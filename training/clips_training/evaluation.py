"""Let the judge look at what an exported folder draws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from attrs import frozen
from diffusers import WanPipeline
from numpy.typing import NDArray

from shapes_training.evaluation import write_sheet

from .captions import EMPTY_CAPTION, held_out_captions
from .clips import FRAME_SIZE, MOTIONS, NUM_FRAMES, Clip
from .judge import Verdict, judge

ATTRIBUTES = ("background", "count", "colour", "shape", "size", "motion")


@frozen(kw_only=True)
class Scores:
    """Share of right clips, by motion as well; the attributes are counted over all clips."""

    count: int
    overall: float
    motions: dict[str, float]
    attributes: dict[str, float]

    def as_markdown(self, settings: str) -> str:
        """Lines for the model card."""
        motions = ", ".join(f"{name} {share:.1%}" for name, share in self.motions.items())
        attributes = ", ".join(f"{name} {share:.1%}" for name, share in self.attributes.items())
        return (
            f"- {settings}: {self.overall:.1%} of {self.count} clips entirely right ({motions}); "
            f"by attribute: {attributes}."
        )


def generate(
    folder: Path,
    captions: Sequence[str],
    *,
    num_inference_steps: int,
    guidance_scale: float,
    batch_size: int = 10,
    seed: int = 0,
) -> list[NDArray[np.uint8]]:
    """Draw captions with the plain diffusers pipeline, (frames, height, width, 3); clip i has the seed ``seed + i``."""
    pipeline = WanPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    clips: list[NDArray[np.uint8]] = []
    for start in range(0, len(captions), batch_size):
        batch = list(captions[start : start + batch_size])
        frames = pipeline(
            prompt=batch,
            negative_prompt=[EMPTY_CAPTION] * len(batch) if guidance_scale > 1 else None,
            guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
            num_frames=NUM_FRAMES,
            height=FRAME_SIZE,
            width=FRAME_SIZE,
            generator=[torch.Generator().manual_seed(seed + start + index) for index in range(len(batch))],
        ).frames
        clips += list(np.rint(255 * frames).astype(np.uint8))
    return clips


def score(clips: Sequence[Clip], verdicts: Sequence[Verdict]) -> Scores:
    """Count what the judge found."""
    passed = np.array([verdict.passed for verdict in verdicts])
    motions = np.array([clip.motion for clip in clips])
    return Scores(
        count=len(passed),
        overall=float(passed.mean()),
        motions={name: float(passed[motions == name].mean()) for name in MOTIONS if (motions == name).any()},
        attributes={name: float(np.mean([getattr(verdict, name) for verdict in verdicts])) for name in ATTRIBUTES},
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

    :param sheet: where to write a contact sheet of the first clips, one a line, if anywhere.
    """
    captions, clips = zip(*held_out_captions(count), strict=True)
    drawn = generate(folder, captions, num_inference_steps=num_inference_steps, guidance_scale=guidance_scale)
    verdicts = [judge(frames, clip) for frames, clip in zip(drawn, clips, strict=True)]
    if sheet is not None:
        pictures = [frame for frames in drawn[:20] for frame in frames[::2]]
        write_sheet(pictures, sheet, columns=len(drawn[0][::2]))
    failures = [
        f"{index}: {caption}: wrong {', '.join(name for name in ATTRIBUTES if not getattr(verdict, name))}"
        for index, (caption, verdict) in enumerate(zip(captions, verdicts, strict=True))
        if not verdict.passed
    ]
    return score(clips, verdicts), failures
