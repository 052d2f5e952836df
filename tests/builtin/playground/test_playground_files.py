"""The files of the page as they are sent, from a real server."""

import http.client
import re

import pytest
from http_process import ServerProcess

from sglang_plugins_builtin.playground.files import FOLDER

NAMES = sorted(path.name for path in FOLDER.iterdir())
TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("playground")
    with ServerProcess(folder, "--port", "0", "--api-key", "k" * 20, plugins="playground") as server:
        server.listening().wait_with("k" * 20)
        yield server


@pytest.fixture(scope="module")
def client(server):
    with server.client() as client:
        yield client


def test_page_and_files_need_no_key(client):
    page = client.get("/")

    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for address in re.findall(r'(?:src|href)="(/playground/[^"]+)"', page.text):
        assert client.get(address).status_code == 200, address


@pytest.mark.parametrize("name", NAMES)
def test_each_file_is_sent_with_its_type_and_policy(client, name):
    answer = client.get(f"/playground/{name}")

    assert answer.content == (FOLDER / name).read_bytes()
    assert answer.headers["content-type"].split(";")[0] == TYPES[name.rpartition(".")[2]]
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/", "/playground/app.js"])
def test_file_that_has_not_changed_is_not_sent_again(client, path):
    first = client.get(path)
    etag = first.headers["etag"]

    assert first.headers["cache-control"] == "no-cache"
    for known in (etag, f'"other", W/{etag}', "*"):
        again = client.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    assert client.head(path).headers["etag"] == etag


@pytest.mark.parametrize(
    "path",
    [
        "/playground/",
        "/playground/nothing.js",
        "/playground/../config.py",
        "/playground/..%2fconfig.py",
        "/playground/%2e%2e/config.py",
        "/playground/..%5cconfig.py",
        "/playground/....//config.py",
        "/playground//etc/passwd",
        "/playground/%2fetc%2fpasswd",
        "/playground/app.js%00.html",
        "/playground/static/app.js",
    ],
)
def test_no_other_file_is_reached(server, path):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", path)  # as it stands: other clients would tidy the path
    answer = connection.getresponse()
    body = answer.read()
    connection.close()

    assert answer.status == 404
    assert b"option(" not in body
    assert b"root:" not in body


@pytest.mark.parametrize("path", ["queue", "receipts/x", "inputs/x", "inputs/x/0", "content/x/0"])
def test_what_concerns_jobs_needs_the_key(client, path):
    assert client.get(f"/playground/api/{path}").status_code == 401


def test_page_has_nothing_inline_and_nothing_from_elsewhere():
    for name in NAMES:
        text = (FOLDER / name).read_text(encoding="utf-8")
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), name
        assert "innerHTML" not in text, name
        assert "eval(" not in text, name
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"\sstyle=|\son[a-z]+=|<style|<script(?![^>]*\ssrc=)", page)


def test_no_playground_leaves_the_page_out(tmp_path):
    with ServerProcess(tmp_path, "--port", "0", "--no-playground", plugins="playground") as server:
        server.ready()
        with server.client() as client:
            assert client.get("/").status_code == 404
            assert client.get("/playground/app.js").status_code == 404
            assert client.get("/playground/api/queue").status_code == 404
