"""Where keys are looked for when none are set."""

import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from sglang_core import OutputError, UploadItem


@pytest.fixture
def signed_with(open_s3):
    """Return the key and token that a URL is signed with."""

    def run():
        storage = open_s3(s3_access_key_id=None, s3_secret_access_key=None, s3_url_kind="presigned")
        query = parse_qs(urlsplit(storage.url_of("x.png")).query)
        return query["X-Amz-Credential"][0].split("/")[0], query.get("X-Amz-Security-Token", [None])[0]

    return run


@pytest.fixture
def server():
    """No server is asked here."""
    return "http://127.0.0.1:9"


def test_variables_of_aws_are_used(signed_with, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")

    assert signed_with() == ("from-environment", "token")


def test_file_of_aws_is_used_with_its_profile(signed_with, tmp_path, monkeypatch):
    path = tmp_path / "credentials"
    path.write_text("[work]\naws_access_key_id = from-file\naws_secret_access_key = x\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("AWS_PROFILE", "work")

    assert signed_with() == ("from-file", None)


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")  # the library's own
def test_role_of_a_container_is_used(signed_with, monkeypatch):
    expiration = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    answer = {"AccessKeyId": "from-role", "SecretAccessKey": "x", "Token": "t", "Expiration": expiration}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as metadata:
        threading.Thread(target=metadata.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        uri = f"http://127.0.0.1:{metadata.server_address[1]}/role"
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri)
        assert signed_with() == ("from-role", "t")
        metadata.shutdown()


@pytest.mark.parametrize("text", [None, "[default]\n", "no file of this kind"], ids=["none", "empty", "damaged"])
def test_no_keys_anywhere_is_one_sentence(text, open_s3, tmp_path, monkeypatch):
    path = tmp_path / "credentials"
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    picture = tmp_path / "x.png"
    picture.write_bytes(b"x")
    storage = open_s3(s3_access_key_id=None, s3_secret_access_key=None)

    with pytest.raises(OutputError, match="there are no keys: none are set, and none are found") as caught:
        storage.upload(UploadItem(path=picture, media_type="image/png"))

    assert "SGLANG_S3_ACCESS_KEY_ID" in caught.value.remedy
