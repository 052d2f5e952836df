"""Which known name an unknown one is taken for, and what an unavailable item says."""

import pytest

from sglang_core import Availability, closest

KNOWN = ("num_frames", "num_outputs", "output_path", "guidance_scale", "negative_prompt", "sage_attn", "vae_tiling")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("num_frame", "num_frames"),
        ("num_fraems", "num_frames"),
        ("outputpath", "output_path"),
        ("outptu-path", "output_path"),
        ("guidance", "guidance_scale"),
        ("negativ_promt", "negative_prompt"),
        ("sage-attn", "sage_attn"),
    ],
)
def test_slip_finds_the_name_that_was_meant(name: str, meant: str) -> None:
    assert closest(name, KNOWN) == meant


@pytest.mark.parametrize("name", ["num_gpus", "--num-gpus", "flash_attn", "colour", ""])
def test_other_word_beside_a_shared_one_is_no_slip(name: str) -> None:
    assert closest(name, KNOWN) is None


def test_nearest_of_several_wins_and_the_far_ones_do_not_hide_it() -> None:
    assert closest("num_fps", ["num_gpus", "nun_fps"]) == "nun_fps"


def test_unavailable_says_why() -> None:
    assert Availability.no("no driver", "install it") == Availability(False, "no driver", "install it")
