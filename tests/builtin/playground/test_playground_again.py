"""Jobs that started from images, made again on the page, in a real browser, against real servers."""

from pathlib import Path

import pytest
from http_process import wait_for
from PIL import Image
from playground_audit import CONTRAST_PROBLEMS, unnamed

KEY = "key-of-a-test-0123456789"


@pytest.fixture
def picture(tmp_path):
    """Write a picture of a size: ``picture("a.png", 24, 32)``."""

    def picture(name, width, height):
        Image.effect_noise((width, height), 60).save(tmp_path / name)
        return tmp_path / name

    return picture


def finish(page, prompt):
    """Make something and wait until it is there."""
    page.fill("#prompt", prompt)
    page.click("#generate")
    page.locator(f'#canvas [alt="Result of: {prompt}"], #canvas [aria-label="Result of: {prompt}"]').wait_for()
    page.wait_for_selector("#result-line:not([hidden])")


def newest(server, kind="images", **headers):
    """Return the newest job, and what its first output was made of."""
    with server.client(headers=headers) as client:
        record = client.get(f"/v1/{kind}?limit=1").json()["data"][0]
        receipts = client.get(f"/playground/api/receipts/{record['id']}").json()["receipts"]
    return record, receipts[0]["request"] if receipts else None


def inputs_of(request):
    """Return the content of the images that something was made of, the mask last."""
    paths = [*request["image_path"], *([request["mask_path"]] if "mask_path" in request else [])]
    return [Path(path).read_bytes() for path in paths]


def again(page, prompt):
    """Fill the form with the settings of the newest job with this prompt."""
    page.locator("#gallery-list").get_by_role("button", name=prompt).first.click()
    page.get_by_role("button", name="Again with these settings").click()


def num_chosen(page, field="image"):
    return page.evaluate(f"document.querySelector('#{field}').files.length")


def made_again(page, server, before, kind="images", **headers):
    """Send the form; return the new job and what its output was made of."""
    page.click("#generate")

    def found():
        record, request = newest(server, kind, **headers)
        return (record, request) if record["id"] != before["id"] and record["outputs"] else None

    return wait_for(found, "a job")


def test_again_brings_image_and_mask_back(visit, edits, picture):
    page = visit(edits)
    page.set_input_files("#image", [picture("a.png", 24, 32), picture("b.webp", 16, 16)])
    page.set_input_files("#mask", picture("m.png", 24, 32))
    page.fill("#strength", "0.75")
    finish(page, "inside of a mask")
    before, first = newest(edits)
    page.click("#reset")

    again(page, "inside of a mask")
    wait_for(lambda: page.inner_text("#announcer") == "The settings are in the form", "the images")
    names = page.locator(".chosen .name").all_inner_texts()
    assert names == ["image 1.png", "image 2.webp", "mask.png"]
    assert page.input_value("#size") == "image"
    assert page.input_value("#strength") == "0.75"
    assert unnamed(page) == []
    after, second = made_again(page, edits, before)

    assert after["settings"] == before["settings"]
    assert inputs_of(second) == inputs_of(first)
    assert second["image_path"] != first["image_path"]  # its own, which stay when the other is deleted
    assert Path(second["mask_path"]).name.startswith(after["id"])


def test_again_is_sent_with_its_images_however_soon(visit, starts, picture):
    page = visit(starts)
    page.set_input_files("#image", picture("a.png", 24, 32))
    finish(page, "of an image")
    before, first = newest(starts)
    page.click("#reset")
    waiting = []
    page.route("**/playground/api/inputs/*/0", lambda route: waiting.append(route))
    page.locator("#gallery-list").get_by_role("button", name="of an image").first.click()
    wait_for(lambda: page.evaluate("document.querySelector('dialog .inputs') !== null"), "what it was made from")
    waiting.clear()

    page.get_by_role("button", name="Again with these settings").click()
    page.get_by_text("Fetching its images").wait_for()
    page.click("#generate")
    assert newest(starts)[0]["id"] == before["id"]
    wait_for(lambda: page.evaluate("1") and waiting, "the request for the image")
    waiting[-1].continue_()
    # The line of the result goes and comes back sooner than a look at the page would tell.
    wait_for(lambda: page.evaluate("1") and newest(starts)[1] and newest(starts)[0]["id"] != before["id"], "the job")

    after, second = newest(starts)
    assert after["id"] != before["id"]
    assert inputs_of(second) == inputs_of(first)


def test_again_with_a_size_that_was_chosen_keeps_it(visit, starts, picture):
    page = visit(starts)
    page.set_input_files("#image", picture("a.png", 24, 32))
    page.select_option("#size", "0")
    finish(page, "of the model's size")
    before, _ = newest(starts)
    page.click("#reset")

    again(page, "of the model's size")
    wait_for(lambda: num_chosen(page) == 1, "the image")
    assert page.input_value("#size") == "0"
    after, _ = made_again(page, starts, before)

    assert after["size"] == before["size"] == "16x16"


def test_again_of_a_job_without_images_takes_those_in_the_form_out(visit, edits, picture):
    page = visit(edits)
    finish(page, "of nothing")
    page.set_input_files("#image", picture("a.png", 24, 32))
    page.set_input_files("#mask", picture("m.png", 24, 32))

    again(page, "of nothing")

    wait_for(lambda: page.inner_text("#announcer") == "The settings are in the form", "the settings")
    assert num_chosen(page) == num_chosen(page, "mask") == 0
    assert page.input_value("#size") == "0"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_images_that_are_gone_are_said_to_be(visit, edits, picture, scheme):
    page = visit(edits, color_scheme=scheme)
    page.set_input_files("#image", picture("a.png", 24, 32))
    page.set_input_files("#mask", picture("m.png", 24, 32))
    finish(page, "soon gone")
    Path(newest(edits)[1]["mask_path"]).unlink()

    page.locator("#gallery-list").get_by_role("button", name="soon gone").first.click()
    page.get_by_role("dialog").get_by_text("Mask: gone").wait_for()
    page.get_by_role("button", name="Again with these settings").click()

    page.wait_for_selector("#inputs-problem:not([hidden])")
    assert page.inner_text("#inputs-problem") == (
        "The mask of the image that this was made from is gone from the server; choose it again to make the same"
    )
    assert page.get_attribute("#inputs-problem", "role") == "alert"
    assert page.evaluate(CONTRAST_PROBLEMS) == []
    assert num_chosen(page) == 0
    page.set_input_files("#image", picture("b.png", 24, 32))
    assert page.is_hidden("#inputs-problem")


def test_job_that_was_deleted_meanwhile_is_said_to_be_gone(visit, edits, picture):
    page = visit(edits)
    page.set_input_files("#image", picture("a.png", 24, 32))
    finish(page, "deleted elsewhere")
    record, _ = newest(edits)
    with edits.client() as client:
        client.delete(f"/v1/images/{record['id']}")

    again(page, "deleted elsewhere")

    page.get_by_text("This job is gone from the server").wait_for()
    page.click("#reset")
    assert page.is_hidden("#inputs-problem")


def test_clip_of_an_image_is_made_again(visit, animations, picture):
    page = visit(animations)
    page.set_input_files("#image", picture("a.png", 16, 16))
    finish(page, "a clip of an image")
    before, first = newest(animations, "videos")
    page.click("#reset")

    again(page, "a clip of an image")
    wait_for(lambda: num_chosen(page) == 1, "the image")
    _, second = made_again(page, animations, before, "videos")

    assert inputs_of(second) == inputs_of(first)


def test_images_are_fetched_with_the_key(visit, guarded_edits, picture):
    headers = {"Authorization": f"Bearer {KEY}"}
    page = visit(guarded_edits, is_ready=False)
    page.get_by_label("Key", exact=True).fill(KEY)
    page.keyboard.press("Enter")
    page.wait_for_selector("#generate:enabled")
    page.set_input_files("#image", picture("a.png", 24, 32))
    finish(page, "with a key")
    before, first = newest(guarded_edits, **headers)
    page.click("#reset")

    again(page, "with a key")
    wait_for(lambda: num_chosen(page) == 1, "the image")
    _, second = made_again(page, guarded_edits, before, **headers)

    assert inputs_of(second) == inputs_of(first)
