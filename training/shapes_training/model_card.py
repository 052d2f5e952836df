"""The README of the exported model folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CARD = """---
license: apache-2.0
pipeline_tag: text-to-image
library_name: diffusers
---

# shapes-image

A very small text-to-image model that draws coloured shapes, {width} x {height} pixels, {megabytes:.1f} MB of weights.
It is a demonstration: a real diffusion model, trained from nothing, small enough to travel inside a Python
package and to answer in seconds on a processor without a GPU.

## How it was made

Everything was trained by the package `shapes_training` in the `training` folder of the project, on pictures that
the package draws itself; no foreign data and no foreign weights were used. `tox -e train-demo` trains it again.

- The architecture is Qwen-Image's, scaled down: `QwenImageTransformer2DModel` with {num_layers} layers of width
  {dim}, `AutoencoderKLQwenImage` with base width {base_dim}, and a `Qwen2_5_VLForConditionalGeneration` text encoder
  with {num_text_layers} layers of width {text_dim} whose vision tower is a stub.
- The autoencoder learned to compress the drawn pictures, with more weight on edges.
- The text encoder first learned, on its own, to say what is where in a caption; that keeps colours, shapes and
  sizes with the right noun.
- Then the transformer and the text encoder learned together by flow matching, with a tenth of the captions left
  out, so that classifier-free guidance works.

## What it can do

Prompts in English with

- one shape: circle (or disc), square (or box), triangle, star;
- a colour: red, green, blue, yellow, orange, purple (or violet), black, white;
- a size: small (little, tiny), large (big, huge), or none for medium;
- a place: center, left, right, top, bottom, or a corner such as "in the top left corner"; none means center;
- a background in one of the colours or in gray; none means white;
- or two shapes in relation: above (over, on top of), below (under), left of, right of.

For example "a small red circle above a blue square on a white background" or "a big yellow star in the top left
corner, purple background".

## What it cannot do

Anything else. Words it does not know are ignored or confuse it; three shapes, other objects, text, patterns and
other picture sizes were never trained. It makes single pictures only: the autoencoder's weights for later frames of
a video are zero, and it cannot take a picture as part of a prompt. The seed changes little: it was shown one picture
for every caption.

## How to use it

```python
from importlib.resources import files

from diffusers import DiffusionPipeline

folder = files("sglang_plugins_builtin.demo_models") / "weights" / "shapes-image"
pipeline = DiffusionPipeline.from_pretrained(str(folder))
picture = pipeline(
    prompt="a small red circle above a blue square on a white background",
    negative_prompt=" ",
    true_cfg_scale={guidance},
    num_inference_steps={steps},
    width={width},
    height={height},
).images[0]
```

`sglang.json` holds the same defaults for `sglang`.
"""

_SCORES = """
## How good it is

Measured with the geometric judge of `shapes_training` on captions of scenes that were kept out of training.

{scores}
"""


def model_card(facts: Mapping[str, Any], scores: str) -> str:
    """The card as Markdown; without scores it makes no claim about quality."""
    card = _CARD.format(**facts)
    return card + _SCORES.format(scores=scores.strip()) if scores.strip() else card
