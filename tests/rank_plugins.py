"""A plugin package for real rank processes: a pipeline without weights that does what its prompt says."""

import textwrap
from pathlib import Path

_SOURCE = """
import logging
import os
import signal
import sys
import threading
import time
import warnings

from attrs import evolve, frozen

from sglang_core import CallDescription, hookimpl
from sglang_core.testing import NoOpBackend, NoOpPipeline

MARKS = os.environ.get("RANK_MARKS", "")
KIND = os.environ.get("RANK_KIND", "image")


class WilfulPipeline(NoOpPipeline):
    def run(self, request, control):
        words = request.prompt.split()
        if "refuse" in words:
            from sglang_core import RequestError
            raise RequestError("this is refused", "ask for something else")
        if "fail" in words:
            raise ValueError("this fails\\nin two lines")
        if "starve" in words:
            raise MemoryError
        if "exit" in words:
            os._exit(3)
        if "die" in words:
            os.kill(os.getpid(), signal.SIGKILL)
        if "die-once" in words and not os.path.exists(MARKS + "-died"):
            open(MARKS + "-died", "w").close()
            os.kill(os.getpid(), signal.SIGSEGV)
        if "hang" in words:
            time.sleep(600)
        if "chatty" in words:
            chat()
        total = request.num_inference_steps or 1
        pause_s = next((float(word[6:]) for word in words if word.startswith("pause=")), 0.0)
        with control.stage("encode"):
            control.check()
        with control.stage("denoise", total=total):
            for index in range(1, total + 1):
                end = time.monotonic() + pause_s
                while time.monotonic() < end:
                    time.sleep(min(0.02, pause_s))
                    if "lively" in words:
                        control.check()
                control.step("denoise", index, total)
                if control.wants_preview(index, total):
                    control.preview(self._draw(request).frames)
        with control.stage("decode"):
            return self._draw(request)


class InterleavingPipeline(WilfulPipeline):
    can_interleave = True
    depth = 0

    def run(self, request, control):
        self.depth += 1
        try:
            if "starve-beside" in request.prompt and self.depth > 1:
                raise MemoryError
            return super().run(request, control)
        finally:
            self.depth -= 1


def chat():
    library = logging.getLogger("chatty_library")
    library.propagate = False
    library.addHandler(logging.StreamHandler())
    library.warning("said by %s", "a library")
    logging.getLogger("wilful_plugin").warning("in two\\nlines")
    warnings.warn("a way of old", stacklevel=1)
    thread = threading.Thread(target=lambda: 1 / 0, name="doomed")
    thread.start()
    thread.join()
    print("printed by hand", file=sys.stderr)


class BatchingPipeline(WilfulPipeline):
    def run_batch(self, requests, control):
        if any("starve-together" in request.prompt for request in requests):
            raise MemoryError
        total = requests[0].num_inference_steps or 1
        pause_s = 0.05 if any("slow" in request.prompt for request in requests) else 0.0
        with control.stage("denoise", total=total):
            for index in range(1, total + 1):
                time.sleep(pause_s)
                control.step("denoise", index, total)
                if control.wants_preview(index, total):
                    for place, request in enumerate(requests):
                        control.preview(self._draw(request).frames, place)
        with open(MARKS + "-batches", "a") as marks:
            marks.write(f"{len(requests)}\\n")
        return [self._draw(request) for request in requests]


@frozen(kw_only=True)
class WilfulBackend(NoOpBackend):
    def load(self, plan, folder, control):
        loads = MARKS + "-loads"
        if MARKS:
            with open(loads, "a") as marks:
                marks.write(f"{os.getpid()}\\n")
        behaviour = os.environ.get("RANK_LOADING", "")
        if behaviour == "hang":
            time.sleep(600)
        if behaviour == "die" or (behaviour == "die-once" and len(open(loads).readlines()) == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if behaviour == "refuse":
            from sglang_core import ModelLoadError
            raise ModelLoadError("the weights are torn", "download them again")
        if behaviour == "noise":
            os.write(int(sys.argv[1]), b"no message at all, rather long")
            time.sleep(600)
        kind = BatchingPipeline if os.environ.get("RANK_BATCHES") else WilfulPipeline
        kind = InterleavingPipeline if os.environ.get("RANK_INTERLEAVES") else kind
        super().load(plan, folder, control)
        return kind(self, plan)


TEXT = {"prompt": None, "width": 16, "height": 16, "num_inference_steps": 4, "guidance_scale": 1.0}
CLIP = {"num_frames": 5, "fps": 8}
START = {**TEXT, "width": None, "height": None, "image": None, "strength": 0.6}


def starting():
    # Like a text model that can start from an image or, with words more, from several, and paint inside of a mask.
    words = os.environ["RANK_INPUTS"].split()
    clip = CLIP if KIND == "video" else {}
    call = CallDescription(kind=KIND, parameters={**TEXT, **clip}, multiple_of=8, frames_step=4 if clip else None)
    max_images = None if "several" in words else 1
    parameters = {**START, **clip}
    start = evolve(call, parameters=parameters, required=("image",), max_images=max_images, image_area=64 * 64)
    masked = evolve(start, parameters={**parameters, "mask_image": None})
    return evolve(call, with_image=start, with_mask=masked if "mask" in words else None)


class Plugin:
    @hookimpl
    def sglang_register_execution_backends(self):
        inputs = {"call": starting()} if os.environ.get("RANK_INPUTS") else {}
        return [WilfulBackend(name="wilful", order=-2, kind=KIND, **inputs)]


plugin = Plugin()
"""


def write_rank_plugin(site: Path) -> Path:
    """Write the package with its metadata to a folder that can be put on ``PYTHONPATH``."""
    info = site / "wilful_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wilful-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sglang.plugins]\nwilful = wilful_plugin:plugin\n")
    (site / "wilful_plugin.py").write_text(textwrap.dedent(_SOURCE))
    return site
