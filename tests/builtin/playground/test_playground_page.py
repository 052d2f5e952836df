"""The page in a real browser, against real servers."""

import json
import re
from urllib.parse import urlsplit

import pytest
from http_process import wait_for
from playground_audit import CONTRAST_PROBLEMS, unnamed

KEY = "key-of-a-test-0123456789"


def generate(page, prompt, **fields):
    for name, value in fields.items():
        page.fill(f"#{name}", str(value))
    page.fill("#prompt", prompt)
    page.click("#generate")


def finish(page, prompt, **fields):
    """Make something and wait until it is there."""
    generate(page, prompt, **fields)
    page.wait_for_selector(f'#canvas img[alt="Result of: {prompt}"], #canvas video[aria-label="Result of: {prompt}"]')
    page.wait_for_selector("#result-line:not([hidden])")


def until(page, expression):
    """Wait until an expression is true; Playwright's own way to wait for one needs what the page's policy forbids."""
    wait_for(lambda: page.evaluate(expression), expression)


def tile(page, name):
    """Return the newest tile of the gallery with this name."""
    return page.locator("#gallery-list").get_by_role("button", name=name).first


def newest(server, **headers):
    with server.client(headers=headers) as client:
        return client.get("/v1/images?limit=1").json()["data"][0]


def test_prompt_becomes_a_picture_in_result_and_gallery(visit, images):
    page = visit(images)

    finish(page, "a quick one", seed="7")

    assert "16 \u00d7 16 · seed 7" in page.inner_text("#result-line").lower()
    made = tile(page, "a quick one")
    made.locator("img").scroll_into_view_if_needed()
    until(page, "[...document.querySelectorAll('.tile img')].every(img => img.naturalWidth === 16)")
    assert page.inner_text("#announcer") == "Finished"
    assert page.is_hidden("#progress")


def test_form_is_made_of_the_model_and_the_document(visit, images, clips):
    page = visit(images)
    assert page.input_value("#num_inference_steps") == "4"
    assert page.input_value("#guidance_scale") == "1"
    assert page.locator("#output_format option").all_inner_texts() == ["png", "jpeg", "webp"]
    assert page.locator("#size option").first.inner_text() == "16 \u00d7 16 · Model's own"
    assert page.get_attribute("#num_inference_steps", "max") == "500"  # the server's own limit
    for name in ("true_cfg_scale", "num_frames", "fps", "model", "stream", "webhook_url", "image"):
        assert page.locator(f"#{name}").count() == 0, name

    page = visit(clips)
    assert (page.input_value("#num_frames"), page.get_attribute("#num_frames", "step")) == ("5", "4")
    assert page.input_value("#fps") == "8"
    assert page.locator("#output_format").count() == 0
    assert page.locator("#x264_preset").count() == 1


def test_what_is_filled_in_is_what_is_asked_for(visit, images):
    page = visit(images)
    page.select_option("#size", "custom")
    page.select_option("#output_format", "webp")
    finish(page, "everything", negative_prompt="noise", num_inference_steps=3, seed="9223372036854775806, 5", n=2,
           width=24, height=32)  # fmt: skip

    record = newest(images)
    assert record["settings"] == {
        "prompt": "everything", "negative_prompt": "noise", "num_inference_steps": 3, "guidance_scale": 1,
        "seed": [9223372036854775806, 5], "n": 2, "width": 24, "height": 32, "previews": 5, "output_format": "webp",
    }  # fmt: skip
    assert page.locator("#canvas img").count() == 2


def test_seed_differs_each_time_unless_it_is_given(visit, images):
    page = visit(images)
    seeds = []
    for prompt in ("one", "two"):
        finish(page, prompt)
        seeds.append(newest(images)["settings"]["seed"])

    assert seeds[0] != seeds[1]
    assert page.input_value("#seed") == ""


def test_progress_and_previews_are_shown_while_it_runs(visit, images):
    page = visit(images)
    generate(page, "lively pause=0.15", num_inference_steps=100)

    page.wait_for_selector('#canvas img.preview[alt="Preview of: lively pause=0.15"]')
    assert re.fullmatch(r"Denoising, step \d+ of 100", page.inner_text("#progress-text"))
    assert 0 < page.evaluate("document.querySelector('#progress-bar').value") < 100
    assert page.inner_text("#announcer") == "Denoising"  # once, without the steps
    page.click("#cancel")
    page.get_by_text("Cancelled.", exact=True).wait_for()


def test_running_job_is_cancelled(visit, images):
    page = visit(images)
    generate(page, "to be cancelled lively pause=0.2", num_inference_steps=500)
    until(page, "document.querySelector('#progress-text').textContent.startsWith('Denoising')")

    page.click("#cancel")

    page.get_by_text("Cancelled.", exact=True).wait_for()
    assert newest(images)["state"] == "cancelled"
    assert page.evaluate("document.activeElement.id") == "generate"  # the button that had the focus is gone
    tile(page, "cancelled: to be cancelled").wait_for()


def test_queue_shows_what_waits_and_lets_go_of_it(visit, images):
    page = visit(images)
    generate(page, "first lively pause=0.2", num_inference_steps=500)
    until(page, "document.querySelector('#progress-text').textContent.startsWith('Denoising')")
    generate(page, "second lively")

    page.get_by_text("Next in the queue").first.wait_for()
    queue = page.get_by_role("region", name="Queue")
    assert "1 running, 1 waiting" in queue.inner_text()
    queue.get_by_role("button", name="Cancel: second lively").click()
    page.get_by_text("Cancelled.", exact=True).wait_for()
    queue.get_by_role("button", name="Show: first lively").press("Enter")
    queue.get_by_role("button", name="Show: first lively").wait_for(state="hidden")
    assert page.evaluate("document.activeElement.id") == "cancel"  # the button that had the focus is gone
    until(page, "document.querySelector('#progress-text').textContent.startsWith('Denoising')")
    queue.get_by_role("button", name="Cancel: first lively").or_(page.locator("#cancel")).first.click()
    queue.wait_for(state="hidden")


def test_page_that_is_loaded_again_goes_on_with_its_job(visit, images):
    page = visit(images)
    generate(page, "patience lively pause=0.1", num_inference_steps=100)
    until(page, "document.querySelector('#progress-text').textContent.startsWith('Denoising')")

    page.reload()

    page.wait_for_selector('#canvas img[alt="Result of: patience lively pause=0.1"]')


def test_details_show_settings_and_receipt_and_go_back_to_where_one_was(visit, images):
    page = visit(images)
    finish(page, "with details", seed="31", guidance_scale="2.5")
    made = tile(page, "with details")
    made.click()

    dialog = page.get_by_role("dialog", name="Details")
    dialog.get_by_text("Receipt").click()
    receipt = json.loads(dialog.locator("pre").inner_text())
    assert receipt["request"]["seed"] == 31
    assert receipt["request"]["guidance_scale"] == 2.5
    assert "2.5" in dialog.locator("dl").inner_text()
    with page.expect_download() as download:
        dialog.get_by_role("button", name="Download output 1").click()
    assert download.value.suggested_filename == f"{newest(images)['id']}_0.png"
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    assert made.evaluate("tile => tile === document.activeElement")


def test_again_makes_the_same_picture(visit, images):
    page = visit(images)
    page.select_option("#size", "1")
    finish(page, "once more", num_inference_steps=6)
    before = newest(images)
    page.click("#reset")
    assert page.input_value("#num_inference_steps") == "4"

    tile(page, "once more").click()
    page.get_by_role("button", name="Again with these settings").click()
    assert page.input_value("#prompt") == "once more"
    assert page.evaluate("document.activeElement.id") == "prompt"
    page.keyboard.press("Control+Enter")
    after = wait_for(lambda: (found := newest(images))["id"] != before["id"] and found["outputs"] and found, "a job")

    assert after["settings"] == before["settings"]
    with images.client() as client:
        assert client.get(after["url"]).content == client.get(before["url"]).content


def test_job_is_deleted_after_a_second_click(visit, images):
    page = visit(images)
    finish(page, "to be deleted")
    record = newest(images)
    tile(page, "to be deleted").click()

    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete for good").click()

    page.get_by_role("dialog").wait_for(state="hidden")
    assert page.locator(".tile", has_text="to be deleted").count() == 0
    with images.client() as client:
        assert client.get(f"/v1/images/{record['id']}").status_code == 404


def test_gallery_is_shown_in_pages(visit, images):
    with images.client() as client:
        for number in range(26):
            client.post("/v1/images/generations", json={"prompt": f"page {number}", "num_inference_steps": 1})
    page = visit(images)
    until(page, "document.querySelectorAll('.tile').length === 24")

    page.click("#more")

    tile(page, "page 0").wait_for()
    assert page.locator(".tile").count() >= 26


def test_error_of_the_server_is_shown_where_it_belongs(visit, images):
    page = visit(images)
    page.click("text=More settings")
    generate(page, "wrong", diffusers_kwargs='{"no_such_argument": 1}')

    page.wait_for_selector("#form-problem:not([hidden])")
    assert "no_such_argument" in page.inner_text("#form-problem")
    assert page.get_attribute("#form-problem", "role") == "alert"
    assert page.get_attribute("#diffusers_kwargs", "aria-invalid") == "true"
    assert page.evaluate("document.activeElement.id") == "diffusers_kwargs"
    page.fill("#diffusers_kwargs", "{")
    page.click("#generate")
    page.get_by_text("is not JSON").wait_for()
    page.fill("#diffusers_kwargs", "")
    finish(page, "right")
    assert page.is_hidden("#form-problem")


def test_job_that_fails_says_why(visit, images):
    page = visit(images)
    generate(page, "refuse this")

    page.wait_for_selector("#stage-problem:not([hidden])")
    assert "This is refused" in page.inner_text("#stage-problem")
    tile(page, "failed: refuse this").click()
    assert "This is refused" in page.get_by_role("dialog").inner_text()


def test_clip_is_made_and_played(visit, clips):
    page = visit(clips)
    finish(page, "a clip", num_frames=9)

    until(page, "document.querySelector('#canvas video').readyState >= 1")
    assert page.evaluate("document.querySelector('#canvas video').videoWidth") == 16
    assert "9 frames" in page.inner_text("#result-line")
    page.locator(".tile").first.scroll_into_view_if_needed()
    until(page, "document.querySelector('.tile img').naturalWidth > 0")
    page.locator(".tile").first.click()
    assert "9 frames, 8 per second" in page.get_by_role("dialog").inner_text()


def test_key_is_asked_for_kept_in_the_tab_and_sent_along(visit, guarded):
    page = visit(guarded, is_ready=False)
    dialog = page.get_by_role("dialog", name="API key")
    dialog.wait_for()
    assert "needs an API key" in dialog.inner_text()
    assert page.is_hidden("#key-problem")  # nobody has done anything wrong yet
    dialog.get_by_role("button", name="Close").click()
    assert "Enter an API key to begin" in page.inner_text("#canvas")
    page.click("#open-key")
    page.get_by_label("Key", exact=True).fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_text("The API key is not one of this server's").wait_for()
    assert page.inner_text("#open-key") == "API key"  # without the mark of a key that is in use
    page.get_by_label("Key", exact=True).fill(KEY)
    page.keyboard.press("Enter")

    page.wait_for_selector("#generate:enabled")
    finish(page, "with a key")
    until(page, "document.querySelector('#canvas img').naturalWidth === 16")
    page.locator(".tile").first.scroll_into_view_if_needed()
    until(page, "document.querySelector('.tile img')?.naturalWidth === 16")
    assert page.evaluate("document.querySelector('#canvas img').src").startswith("blob:")
    assert page.evaluate("JSON.stringify(localStorage)").find(KEY) < 0
    assert KEY in page.evaluate("JSON.stringify(sessionStorage)")
    assert KEY not in page.content()
    assert page.context.cookies() == []
    page.click("#open-key")
    page.get_by_role("button", name="Forget").click()
    page.get_by_text("needs an API key").wait_for()
    assert KEY not in page.evaluate("JSON.stringify(sessionStorage)")


def test_server_without_keys_has_no_place_for_one(visit, images):
    page = visit(images)

    assert page.is_hidden("#open-key")


def test_page_loads_nothing_from_elsewhere(visit, images):
    page = visit(images, is_ready=False)
    hosts = set()
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))

    page.reload()
    page.wait_for_selector("#generate:enabled")

    assert hosts == {urlsplit(images.url).netloc}


def test_markup_in_a_prompt_stays_text(visit, images):
    page = visit(images)
    prompt = "<img src=x onerror=alert(1)><b>bold</b>"
    generate(page, prompt)
    page.wait_for_selector("#result-line:not([hidden])")
    page.locator(".tile").first.click()

    assert prompt in page.get_by_role("dialog").inner_text()
    assert page.locator("b").count() == 0


def test_theme_follows_the_system_and_can_be_chosen(visit, images):
    def ground(page):
        return page.evaluate("getComputedStyle(document.documentElement).backgroundColor")

    page = visit(images, color_scheme="dark")
    dark = ground(page)
    page.get_by_role("button", name="Theme: automatic").click()
    light = ground(page)
    page.reload()

    assert light != dark
    assert ground(page) == light
    page.get_by_role("button", name="Theme: light").click()
    assert ground(page) == dark
    page.get_by_role("button", name="Theme: dark").click()
    assert page.get_attribute("#theme", "aria-label") == "Theme: automatic"


def test_everything_works_by_keyboard_alone(visit, images):
    page = visit(images)

    def focused():
        return page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()")

    def tab_to(what):
        for _ in range(60):
            if focused() == what:
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"{what} is not reached")

    page.keyboard.press("Tab")
    assert focused() == "Skip to the prompt"
    page.keyboard.press("Enter")
    assert focused() == "prompt"
    page.keyboard.type("typed")
    tab_to("generate")
    page.keyboard.press("Enter")
    page.wait_for_selector("#result-line:not([hidden])")
    tab_to("Details")
    page.keyboard.press("Space")
    dialog = page.get_by_role("dialog", name="Details")
    dialog.wait_for()
    tab_to("Again with these settings")
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    assert focused() == "Details"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_control_has_a_name_and_every_text_can_be_read(visit, images, scheme):
    page = visit(images, color_scheme=scheme)
    finish(page, "to be looked at")
    page.click("text=More settings")
    generate(page, "refuse this")
    page.wait_for_selector("#stage-problem:not([hidden])")

    assert unnamed(page) == []
    assert page.evaluate(CONTRAST_PROBLEMS) == []
    tile(page, "to be looked at").click()
    page.get_by_text("Receipt").click()
    assert unnamed(page) == []
    assert page.evaluate(CONTRAST_PROBLEMS) == []


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 1920])
def test_nothing_is_wider_than_the_window(visit, images, width):
    page = visit(images, width=width)
    finish(page, "a" + "very" * 80)

    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator(".tile").first.click()
    page.get_by_text("Receipt").click()
    details = page.locator("#details")
    assert details.evaluate("dialog => dialog.scrollWidth <= dialog.clientWidth")


def test_nothing_moves_for_those_who_want_it_so(visit, images):
    page = visit(images, reduced_motion="reduce")
    generate(page, "lively pause=0.1", num_inference_steps=8)

    assert page.evaluate("document.getAnimations().length") == 0
    page.wait_for_selector("#result-line:not([hidden])")
