"""``sglang generate`` and ``sglang uploads`` with a bucket on a real server."""

import json
import urllib.request

import pytest
from s3_server import FaultyProxy, first, s3_error

from sglang_core import Generator


@pytest.fixture
def bucket(s3_manager, admin, server, monkeypatch):
    """Let the environment choose the bucket."""
    for name, value in {
        "SGLANG_CLOUD_STORAGE_TYPE": "s3",
        "SGLANG_S3_BUCKET_NAME": "pictures",
        "SGLANG_S3_ACCESS_KEY_ID": "AKIA",
        "SGLANG_S3_SECRET_ACCESS_KEY": "secret",
        "SGLANG_S3_ENDPOINT_URL": server,
    }.items():
        monkeypatch.setenv(name, value)
    return admin


@pytest.fixture
def words(tiny_model, tmp_path):
    return ["--model-path", tiny_model, "--output-path", tmp_path / "out", "--prompt", "a", "--seed", "7"]


def keys(admin):
    return [found.object_name for found in admin.list_objects("pictures", recursive=True)]


def test_outputs_are_uploaded_and_deleted_here(sglang, words, bucket, server, tmp_path):
    done = sglang("generate", *words, "--num-outputs", 3, "--output-file-name", "x.png", "--s3-prefix", "a", "--json")

    answer = json.loads(done.out)
    assert done.code == 0
    assert keys(bucket) == ["a/x_0.png", "a/x_1.png", "a/x_2.png"]
    assert [output["url"] for output in answer["outputs"]] == [f"{server}/pictures/a/x_{i}.png" for i in range(3)]
    assert {(output["path"], output["upload_error"]) for output in answer["outputs"]} == {(None, None)}
    assert list((tmp_path / "out").iterdir()) == []


def test_signed_url_is_on_stdout_and_not_in_the_log(sglang, words, bucket, tmp_path):
    signed = ["--s3-url-kind", "presigned", "--log-level", "debug"]
    done = sglang("generate", *words, *signed, "--output-file-name", "x.png")
    as_json = sglang("generate", *words, *signed, "--output-file-name", "y.png", "--json")

    assert f"{tmp_path / 'out' / 'x.png'} is now http://" in done.out
    with urllib.request.urlopen(json.loads(as_json.out)["outputs"][0]["url"]) as picture:
        assert picture.read(4) == b"\x89PNG"
    assert "X-Amz-Signature" not in done.err + as_json.err


def test_failed_upload_is_repeated_later(sglang, words, bucket, server, tmp_path, monkeypatch, no_pauses):
    out = tmp_path / "out"
    with FaultyProxy(server, rule=first(99, s3_error("AccessDenied"))) as proxy:
        monkeypatch.setenv("SGLANG_S3_ENDPOINT_URL", proxy.address)
        made = sglang("generate", *words, "--output-file-name", "x.png", "--json")
        listed = sglang("uploads", out)
        failed = sglang("uploads", out, "--retry")
    monkeypatch.setenv("SGLANG_S3_ENDPOINT_URL", server)
    repeated = sglang("uploads", out, "--retry")
    listed_again = sglang("uploads", out)

    (output,) = json.loads(made.out)["outputs"]
    assert (made.code, output["path"], output["url"]) == (0, str(out / "x.png"), None)
    assert "access is denied" in output["upload_error"]
    assert f"then run 'sglang uploads {out} --retry'" in made.err
    assert listed.out == f"{out / 'x.png'}  cannot upload 'x.png' to bucket 'pictures': access is denied\n"
    assert failed.code == 7
    assert "1 of 1 files are still not uploaded" in failed.err
    assert (repeated.code, repeated.out) == (0, f"{out / 'x.png'} is now {server}/pictures/x.png\n")
    assert (listed_again.code, listed_again.out) == (0, "")
    assert keys(bucket) == ["x.png"]
    assert list(out.iterdir()) == []


def test_generator_uploads_too(bucket, server, tiny_model, no_op_manager, tmp_path):
    with Generator.from_pretrained(str(tiny_model), manager=no_op_manager) as generator:
        result = generator.generate("a", output_path=str(tmp_path), output_file_name="x.png")

    assert (result.outputs[0].url, result.paths) == (f"{server}/pictures/x.png", ())


def test_wrong_storage_ends_the_run_before_anything_is_made(sglang, words, bucket, tmp_path):
    done = sglang("generate", *words, "--cloud-storage-type", "gcs")

    assert done.code == 2
    assert "--cloud-storage-type: unknown storage 'gcs' (known: s3)" in done.err
    assert not (tmp_path / "out").exists()


def test_doctor_asks_the_bucket(s3_manager, bucket, monkeypatch):
    good = s3_manager.checks.get("s3").run()
    monkeypatch.setenv("SGLANG_S3_BUCKET_NAME", "elsewhere")
    bad = s3_manager.checks.get("s3").run()

    assert (good.status, good.message) == ("ok", "bucket pictures can be written to")
    assert (bad.status, "there is no such bucket" in bad.message) == ("problem", True)
    assert keys(bucket) == []
