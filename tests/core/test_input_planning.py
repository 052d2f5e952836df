"""Images and masks while planning: who takes them, what they are refused for, and the size that follows."""

import base64
import io
import subprocess
import sys

import pytest
from PIL import Image

from sglang_core import Availability, CallDescription, ConfigError, FolderSource, RequestError, describe_model
from sglang_core.planning import create_plan, replan_requests
from sglang_core.testing import bare_manager, make_settings, no_op_plugin, write_tiny_pipeline
from sglang_plugins_builtin import media

TEXT = {"prompt": None, "width": 16, "height": 16, "num_inference_steps": 4}
START = {**TEXT, "width": None, "height": None, "strength": 0.6, "image": None}
ORIENTATION = 0x0112


def call(**changes):
    """Return a call like that of a text-to-image model whose relatives start from images and inpaint."""
    common = {"kind": "image", "multiple_of": 8, "max_images": 1, "image_area": 64 * 64}
    with_image = CallDescription(parameters=START, required=("image",), pipeline_class="StartPipeline", **common)
    with_mask = CallDescription(
        parameters={**START, "mask_image": None}, required=("image", "mask_image"), pipeline_class="InpaintPipeline",
        **common,
    )  # fmt: skip
    given = {"kind": "image", "parameters": TEXT, "multiple_of": 8, "with_image": with_image, "with_mask": with_mask}
    return CallDescription(**{**given, **changes})


@pytest.fixture
def model(tmp_path):
    folder = write_tiny_pipeline(tmp_path / "tiny")
    return describe_model(FolderSource("tiny", "directory", folder))


@pytest.fixture
def plan(model):
    """Plan a run of the tiny model by backends: ``plan(*calls, **settings)``, each call one backend's."""

    def plan(*calls, may_lack_inputs=False, **settings):
        manager = bare_manager(host_options=True)
        manager.register(media, "media")
        for index, description in enumerate(calls or (call(),)):
            name = f"no_op_{index}"
            manager.register(no_op_plugin(name=name, order=index, call=description), name)
        settings = {"prompt": "x", **settings}
        made = make_settings(manager, "generate", **settings)
        return manager, create_plan(manager, made, model, may_lack_inputs=may_lack_inputs)

    return plan


@pytest.fixture
def picture(tmp_path):
    """Write a picture of a size: ``picture("a.png", 16, 8)``."""

    def picture(name, width, height, mode="RGB", **options):
        Image.new(mode, (width, height)).save(tmp_path / name, **options)
        return str(tmp_path / name)

    return picture


def refusal(function, *arguments, kind=RequestError, **named):
    with pytest.raises(kind) as refused:
        function(*arguments, **named)
    return refused.value


def test_call_follows_from_what_is_given(plan, picture):
    image, mask = picture("a.png", 16, 8), picture("m.png", 16, 8)
    from_text = plan()[1].requests[0]
    from_image = plan(image_path=image)[1].requests[0]
    masked = plan(image_path=image, mask_path=mask, strength=0.9)[1]

    assert (from_text.strength, from_text.width, from_text.height) == (None, 16, 16)
    assert (from_image.strength, from_image.width, from_image.height) == (0.6, 16, 8)
    assert (masked.requests[0].strength, masked.requests[0].mask_path) == (0.9, mask)
    assert masked.request_reasons["width"] == "from the image of 16 x 8"
    assert plan(image_path=image)[1].request_reasons["strength"] == "default of StartPipeline"


def test_mask_without_an_image_is_refused(plan, picture):
    mask = picture("m.png", 16, 8)

    for may_lack_inputs in (False, True):  # as for a run, and as for an explanation
        error = refusal(plan, mask_path=mask, may_lack_inputs=may_lack_inputs)
        assert error.problem == "--mask-path is given without an image"
        assert "--image-path" in error.remedy


@pytest.mark.parametrize("as_url", [False, True], ids=["file", "data URL"])
def test_mask_of_another_size_is_refused(plan, picture, as_url):
    mask = picture("m.png", 8, 16)
    if as_url:
        with open(mask, "rb") as file:
            mask = "data:image/png;base64," + base64.b64encode(file.read()).decode()

    error = refusal(plan, image_path=picture("a.png", 16, 8), mask_path=mask)

    assert error.problem == "--mask-path: the mask has 8 x 16 pixels, its image 16 x 8"
    assert error.remedy == "give a mask of the size of the image"


def test_mask_is_compared_with_the_image_upright(plan, picture):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    lying = picture("a.jpg", 16, 8, exif=exif)

    request = plan(image_path=lying, mask_path=picture("m.png", 8, 16))[1].requests[0]

    assert (request.width, request.height) == (8, 16)


def test_mask_for_a_model_that_does_not_inpaint_is_refused(plan, picture):
    inputs = {"image_path": picture("a.png", 16, 8), "mask_path": picture("m.png", 16, 8)}

    error = refusal(plan, call(with_mask=None), **inputs)

    assert error.problem == "--mask-path does not apply: this model has no inpainting pipeline"
    assert error.remedy == "leave it out, or choose a model that inpaints"


def test_another_backend_that_inpaints_is_named(plan, picture):
    inputs = {"image_path": picture("a.png", 16, 8), "mask_path": picture("m.png", 16, 8)}
    without = call(with_mask=None, with_image=None)

    error = refusal(plan, without, call(), **inputs)
    image_error = refusal(plan, without, call(), image_path=inputs["image_path"])

    assert error.problem == "--mask-path does not apply: this backend does not inpaint with this model"
    assert error.remedy == "load it with --backend no_op_1"
    assert image_error.problem == "--image-path does not apply: this model takes no image"
    assert image_error.remedy == "load it with --backend no_op_1"


def test_model_that_is_loaded_is_asked_anew_for_each_request(plan, picture):
    manager, loaded = plan(call(with_mask=None), call(), may_lack_inputs=True)
    inputs = {"image_path": [picture("a.png", 16, 8)]}

    masked = loaded.settings.replace(**inputs, mask_path=picture("m.png", 16, 8))
    started = replan_requests(manager, loaded, loaded.settings.replace(**inputs))

    assert refusal(replan_requests, manager, loaded, masked).remedy == "load it with --backend no_op_1"
    assert started.requests[0].strength == 0.6
    assert started.call is loaded.call


def test_model_that_only_inpaints_needs_a_mask(plan, picture):
    only = CallDescription(kind="image", parameters={**START, "mask_image": None}, required=("image", "mask_image"))

    error = refusal(plan, only, image_path=picture("a.png", 16, 8))

    assert error.problem == "this model paints inside of a mask, and none is given"
    assert "--mask-path FILE" in error.remedy
    assert (only.takes_image, only.takes_mask) == (True, True)


def test_strength_needs_an_image(plan):
    error = refusal(plan, strength=0.5)

    assert "takes no strength" in error.problem
    assert "--image-path" in error.remedy
    assert refusal(plan, strength=1.5, kind=ConfigError)
    assert refusal(plan, strength=0.0, kind=ConfigError)


def test_size_that_is_given_wins_and_a_large_image_is_made_smaller(plan, picture):
    def size(**settings):
        request = plan(image_path=picture("a.png", 256, 128), **settings)[1].requests[0]
        return request.width, request.height

    assert size() == (88, 48)  # 64 x 64 pixels at most, two to one, on a grid of 8
    assert size(width=64) == (64, 32)
    assert size(height=64) == (128, 64)
    assert size(width=40, height=40) == (40, 40)


def test_size_of_an_image_that_must_be_fetched_stays_open(plan):
    request = plan(image_path="https://example.com/a.png", mask_path="https://example.com/m.png")[1].requests[0]

    assert (request.width, request.height) == (None, None)


def test_files_that_are_not_there_are_named(plan, picture, tmp_path):
    error = refusal(plan, image_path=picture("a.png", 16, 8), mask_path=str(tmp_path / "none.png"), kind=ConfigError)

    assert "--mask-path" in error.problem
    assert "none.png: there is no such file" in error.problem


def test_backend_that_can_not_run_the_model_is_not_named(model, picture):
    manager = bare_manager(host_options=True)
    manager.register(no_op_plugin(name="first", order=0, call=call(with_mask=None)), "first")
    unable = {"call": call(), "supported": Availability.no("it is too large", "take a smaller one")}
    manager.register(no_op_plugin(name="second", order=1, **unable), "second")
    inputs = {"image_path": picture("a.png", 16, 8), "mask_path": picture("m.png", 16, 8)}

    error = refusal(create_plan, manager, make_settings(manager, "generate", prompt="x", **inputs), model)

    assert "has no inpainting pipeline" in error.problem


def test_reading_sizes_decodes_no_pixel(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 32)).save(buffer, "png")
    (tmp_path / "torn.png").write_bytes(buffer.getvalue()[:50])  # its header, and next to nothing of its pixels
    read = "from sglang_core.input_images import read_image_size; import sys; print(read_image_size(sys.argv[1]))"

    done = subprocess.run(
        [sys.executable, "-c", read, str(tmp_path / "torn.png")], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "(64, 32)"
