"""The README of the exported model folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CARD = """---
license: apache-2.0
pipeline_tag: text-to-video
library_name: diffusers
---

# shapes-video

A very small text-to-video model that draws one coloured shape in motion: {num_frames} frames of {width} x {height}
pixels at {fps} frames per second, {megabytes:.1f} MB of weights. It is a demonstration: a real diffusion model,
trained from nothing, small enough to travel inside a Python package and to answer in seconds on a processor without
a GPU.

## How it was made

Everything was trained by the package `clips_training` in the `training` folder of the project, on clips that the
package draws itself; no foreign data and no foreign weights were used. `tox -e train-demo` trains it again.

- The architecture is Wan's, scaled down: `WanTransformer3DModel` with {num_layers} layers of width {dim},
  `AutoencoderKLWan` with base width {base_dim}, and a `UMT5EncoderModel` with {num_text_layers} layers of width
  {text_dim}.
- The autoencoder learned to compress clips four times in time, in width and in height, with more weight
  on edges.
- The text encoder learned to name what a caption says. Then the transformer and the text encoder learned together by
  flow matching, with a tenth of the captions left out, so that classifier-free guidance works.

## What it can do

Prompts in English with

- a shape: circle (or disc), square (or box), triangle;
- a colour: red, green, blue, yellow, orange, purple (or violet), black, white;
- a size: small (little, tiny), or large (big), which is also what none means;
- what it does: moves from left to right, from right to left, from top to bottom (falls), from bottom to top (rises),
  grows, shrinks, or stays still, which is also what none means;
- a background in one of the colours or in gray; none means white.

For example "a red circle moves from left to right on a black background" or "a small blue square rising, yellow
background".

## What it cannot do

Anything else. Words it does not know are ignored or confuse it; two shapes, other objects and other motions, text,
patterns, other sizes and lengths were never trained, and it cannot begin with a picture. The seed changes little: it
was shown one clip for every meaning.

## How to use it

```python
from importlib.resources import files

from diffusers import WanPipeline

folder = files("sglang_plugins_builtin.demo_models") / "weights" / "shapes-video"
pipeline = WanPipeline.from_pretrained(str(folder))
frames = pipeline(
    prompt="a red circle moves from left to right on a black background",
    guidance_scale={guidance},
    num_inference_steps={steps},
    num_frames={num_frames},
    width={width},
    height={height},
    output_type="pil",
).frames[0]
frames[0].save("circle.gif", save_all=True, append_images=frames[1:], duration=1000 // {fps}, loop=0)
```

`sglang.json` holds the same defaults for `sglang`.
"""

_SCORES = """
## How good it is

Measured with the geometric judge of `clips_training` on captions of clips that were kept out of training.

{scores}
"""


def model_card(facts: Mapping[str, Any], scores: str) -> str:
    """The card as Markdown; without scores it makes no claim about quality."""
    card = _CARD.format(**facts)
    return card + _SCORES.format(scores=scores.strip()) if scores.strip() else card
