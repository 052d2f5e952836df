"""What the command line says in flags, clients are told in fields."""

import pytest

from sglang_plugins_builtin.openai_api.wording import said_to_clients

SAID = [
    ("width 65 is odd", "use --width 64", "width 65 is odd; try: use width 64"),
    ("two seeds", "leave --num-outputs-per-prompt out", "two seeds; try: leave n out"),
    ("--image-path a.png: it is no image", "give one", "image a.png: it is no image; try: give one"),
    ("output_file_name 'a.bmp': nobody writes that", "", "output_format 'a.bmp': nobody writes that"),
    (
        "MosaicPipeline failed: no",
        "use other settings or another --backend",
        "MosaicPipeline failed: no; try: use other settings or another --backend "
        "(--backend is given when the server is started)",
    ),
    (
        "the latents are not finite",
        "use --dit-precision fp32 and --vae-precision fp32, or a lower --guidance-scale",
        "the latents are not finite; try: use --dit-precision fp32 and --vae-precision fp32, or a lower guidance_scale "
        "(--dit-precision and --vae-precision are given when the server is started)",
    ),
]


@pytest.mark.parametrize(("problem", "remedy", "said"), SAID, ids=[problem for problem, _, _ in SAID])
def test_flags_become_fields_or_say_whose_they_are(problem, remedy, said):
    assert said_to_clients(problem, remedy) == said
