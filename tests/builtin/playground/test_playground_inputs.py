"""Images and masks that are chosen on the page, in a real browser, against real servers."""

from pathlib import Path

import pytest
from http_process import wait_for
from PIL import Image
from playground_audit import unnamed


@pytest.fixture
def picture(tmp_path):
    """Write a picture of a size: ``picture("a.png", 24, 32)``."""

    def picture(name, width, height):
        Image.new("L", (width, height), 255).save(tmp_path / name)
        return tmp_path / name

    return picture


def finish(page, prompt):
    """Make something and wait until it is there."""
    page.fill("#prompt", prompt)
    page.click("#generate")
    page.wait_for_selector(f'#canvas img[alt="Result of: {prompt}"]')
    page.wait_for_selector("#result-line:not([hidden])")


def newest(server):
    """Return the newest job, and what its first output was made of."""
    with server.client() as client:
        record = client.get("/v1/images?limit=1").json()["data"][0]
        receipts = client.get(f"/playground/api/receipts/{record['id']}").json()["receipts"]
    return record, receipts[0]["request"]


def test_image_and_mask_are_sent_as_they_are_chosen(visit, edits, picture):
    page = visit(edits)
    image, mask = picture("a.png", 24, 32), picture("m.png", 24, 32)
    assert page.is_hidden("#mask")
    assert page.is_hidden("#strength")

    page.set_input_files("#image", image)
    page.set_input_files("#mask", mask)
    page.fill("#strength", "0.75")
    finish(page, "inside of a mask")

    record, request = newest(edits)
    assert record["operation"] == "images.edits"
    assert record["size"] == "24x32"  # that of the image
    assert record["settings"]["strength"] == 0.75
    assert [Path(path).read_bytes() for path in request["image_path"]] == [image.read_bytes()]
    assert Path(request["mask_path"]).read_bytes() == mask.read_bytes()


def test_image_that_is_taken_back_leaves_no_trace(visit, edits, picture):
    page = visit(edits)
    page.set_input_files("#image", picture("a.png", 24, 32))
    page.set_input_files("#mask", picture("m.png", 24, 32))
    page.fill("#strength", "0.75")
    assert page.input_value("#size") == "image"

    page.set_input_files("#image", [])
    assert page.is_hidden("#image-options")
    assert page.input_value("#size") == "0"
    finish(page, "of nothing")

    record, request = newest(edits)
    assert record["operation"] == "images.generations"
    assert record["size"] == "16x16"
    assert not {"image_path", "mask_path", "strength"} & set(request)


def test_size_that_is_chosen_wins_over_the_image_s(visit, starts, picture):
    page = visit(starts)
    assert page.locator("#mask").count() == 0
    page.set_input_files("#image", picture("a.png", 24, 32))
    page.select_option("#size", "custom")
    page.fill("#width", "40")
    page.fill("#height", "16")

    finish(page, "of an image")

    record, request = newest(starts)
    assert record["size"] == "40x16"
    assert len(request["image_path"]) == 1
    assert request["strength"] == 0.6


def test_mask_that_does_not_fit_is_said_at_its_field(visit, edits, picture):
    page = visit(edits)
    page.set_input_files("#image", picture("a.png", 24, 32))
    page.set_input_files("#mask", picture("m.png", 32, 32))
    page.fill("#prompt", "x")
    page.click("#generate")

    wait_for(lambda: "the mask has 32 x 32 pixels, its image 24 x 32" in page.inner_text("#form-problem"), "a message")
    assert page.get_attribute("#mask", "aria-invalid") == "true"
    assert page.evaluate("document.activeElement.id") == "mask"


def test_fields_of_an_image_are_named_and_go_with_reset(visit, edits, picture):
    page = visit(edits)
    page.set_input_files("#image", picture("a.png", 24, 32))
    assert unnamed(page) == []
    page.get_by_label("Mask of the image").wait_for()
    page.get_by_label("Strength").wait_for()

    page.click("#reset")

    assert page.is_hidden("#image-options")
    assert page.evaluate("document.querySelector('#image').files.length") == 0


def test_page_with_an_image_fits_a_telephone(visit, edits, picture):
    page = visit(edits, width=360)
    page.set_input_files("#image", picture("a.png", 24, 32))

    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_chosen_images_are_shown_and_taken_out_one_by_one(visit, edits, picture):
    page = visit(edits)
    page.set_input_files("#image", [picture("a.png", 24, 32), picture("b.png", 16, 16)])
    chosen = page.get_by_role("list", name="Chosen images").get_by_role("listitem")
    wait_for(lambda: "24 \u00d7 32" in chosen.nth(0).inner_text(), "the size of the first")
    wait_for(lambda: "16 \u00d7 16" in chosen.nth(1).inner_text(), "the size of the second")

    page.get_by_role("button", name="Remove a.png").press("Enter")
    assert page.evaluate("[...document.querySelector('#image').files].map(file => file.name)") == ["b.png"]
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Remove b.png"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "image"
    assert page.inner_text("#announcer") == "Removed b.png"
    assert page.is_hidden("#image-options")
    assert chosen.count() == 0


def test_file_that_is_no_image_has_no_thumbnail(visit, edits, tmp_path):
    page = visit(edits)
    (tmp_path / "text.png").write_text("no image")

    page.set_input_files("#image", tmp_path / "text.png")

    page.locator(".chosen .unreadable").wait_for()
    page.get_by_role("button", name="Remove text.png").click()
    assert page.is_hidden(".chosen")
