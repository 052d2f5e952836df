"""Real servers over a model without weights, and a real browser."""

import shutil

import pytest
from http_process import DEADLINE_S
from real_server import served

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
KEY = "key-of-a-test-0123456789"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Return a server that makes images."""
    yield from served(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Return a server that makes clips."""
    yield from served(tmp_path_factory.mktemp("clips"), kind="video")


@pytest.fixture(scope="module")
def edits(tmp_path_factory):
    """Return a server that makes images of nothing, of images, and inside of a mask."""
    yield from served(tmp_path_factory.mktemp("edits"), environment={"RANK_INPUTS": "image mask several"})


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    """Return a server that makes images of nothing and of an image."""
    yield from served(tmp_path_factory.mktemp("starts"), environment={"RANK_INPUTS": "image"})


@pytest.fixture(scope="module")
def animations(tmp_path_factory):
    """Return a server that makes clips of nothing and of an image."""
    yield from served(tmp_path_factory.mktemp("animations"), kind="video", environment={"RANK_INPUTS": "image"})


@pytest.fixture(scope="module")
def guarded_edits(tmp_path_factory):
    """Return a server that asks for a key and makes images of an image."""
    folder = tmp_path_factory.mktemp("guarded-edits")
    yield from served(folder, "--api-key", KEY, environment={"RANK_INPUTS": "image"})


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """Return a server that asks for a key."""
    yield from served(tmp_path_factory.mktemp("guarded"), "--api-key", KEY)


@pytest.fixture(scope="module")
def browser():
    """Return Debian's browser, driven by Playwright, whose event loop is this thread's until the module is over."""
    if CHROMIUM is None:
        pytest.skip("no chromium is installed: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Open the page of a server in a fresh profile; what it complains about fails the test."""
    contexts, complaints = [], []

    def visit(server, *, width=1280, is_ready=True, **settings):
        context = browser.new_context(viewport={"width": width, "height": 900}, **settings)
        contexts.append(context)
        context.set_default_timeout(DEADLINE_S * 1000)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if _is_complaint(said) else None)
        page.goto(server.url)
        if is_ready:
            page.wait_for_selector("#generate:enabled")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []


def _is_complaint(said):
    # A status that the page shows in words is no complaint of the page; the browser notes it all the same.
    return said.type in {"error", "warning"} and "Failed to load resource" not in said.text
