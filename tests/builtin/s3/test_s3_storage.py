"""What lies in the bucket, under which key, and where its URL leads."""

import urllib.error
import urllib.request

import pytest

from sglang_core import OutputError, UploadItem
from sglang_plugins_builtin.s3 import storage as storage_module

FACTS = {"id": "abc", "index": "2", "kind": "image", "date": "2024-02-29"}


@pytest.fixture
def item(tmp_path):
    path = tmp_path / "ein Stern.png"
    path.write_bytes(b"not really a picture")
    return UploadItem(path=path, media_type="image/png", facts=FACTS)


def keys(admin):
    return [found.object_name for found in admin.list_objects("pictures", recursive=True)]


def unfinished(admin):
    return admin._list_multipart_uploads("pictures").uploads


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({}, "ein Stern.png"),
        ({"s3_prefix": "/a/b/"}, "a/b/ein Stern.png"),
        ({"s3_key_template": "{date}/{id}_{index}.{extension}"}, "2024-02-29/abc_2.png"),
        ({"s3_prefix": "x", "s3_key_template": "{kind}/{stem}-{id}.{extension}"}, "x/image/ein Stern-abc.png"),
    ],
    ids=["name", "prefix", "template", "both"],
)
def test_key_is_made_of_prefix_and_template(changes, key, open_s3, admin, item):
    stored = open_s3(**changes).upload(item)

    assert stored.key == key
    assert keys(admin) == [key]
    assert admin.stat_object("pictures", key).content_type == "image/png"


def test_public_url_is_endpoint_bucket_and_quoted_key(open_s3, admin, item, server):
    assert open_s3().upload(item).url == f"{server}/pictures/ein%20Stern.png"


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({"s3_endpoint_url": None}, "https://pictures.s3.us-east-1.amazonaws.com/a/b.png"),
        (
            {"s3_endpoint_url": None, "s3_region_name": "eu-west-3"},
            "https://pictures.s3.eu-west-3.amazonaws.com/a/b.png",
        ),
        (
            {"s3_endpoint_url": None, "s3_bucket_name": "my.pictures"},
            "https://s3.us-east-1.amazonaws.com/my.pictures/a/b.png",
        ),
        (
            {"s3_endpoint_url": None, "s3_addressing_style": "path"},
            "https://s3.us-east-1.amazonaws.com/pictures/a/b.png",
        ),
        ({"s3_endpoint_url": "https://s3.example.com/"}, "https://s3.example.com/pictures/a/b.png"),
        (
            {"s3_endpoint_url": "https://s3.example.com:9000", "s3_addressing_style": "virtual"},
            "https://pictures.s3.example.com:9000/a/b.png",
        ),
        ({"s3_public_url": "https://cdn.example.com/files/"}, "https://cdn.example.com/files/a/b.png"),
    ],
    ids=["aws", "aws-region", "aws-dotted", "aws-path", "endpoint", "endpoint-virtual", "cdn"],
)
def test_shape_of_public_urls(changes, url, open_s3):
    assert open_s3(**changes).url_of("a/b.png") == url


@pytest.mark.parametrize("style", ["path", "virtual"])
def test_signed_url_has_the_shape_that_requests_have(style, open_s3):
    storage = open_s3(s3_endpoint_url="https://s3.example.com", s3_addressing_style=style, s3_url_kind="presigned")

    url = storage.url_of("a/b.png")

    host = "s3.example.com/pictures" if style == "path" else "pictures.s3.example.com"
    assert url.startswith(f"https://{host}/a/b.png?")
    assert "&X-Amz-Expires=86400&" in url


def test_region_stands_in_what_is_signed(open_s3, monkeypatch):
    def region(**changes):
        return open_s3(s3_url_kind="presigned", **changes).url_of("x").partition("us-east-1%2F")[1]

    assert region()
    assert not region(s3_region_name="eu-west-3")
    assert not region(s3_endpoint_url="https://s3.eu-west-3.amazonaws.com")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-3")
    assert not region()


def test_signed_url_gives_the_file(open_s3, admin, item):
    url = open_s3(s3_url_kind="presigned", s3_url_expiry_s=600).upload(item).url

    with urllib.request.urlopen(url) as answer:
        assert answer.read() == item.path.read_bytes()
    assert "X-Amz-Expires=600" in url


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"s3_encryption": "s3"}, {"x-amz-server-side-encryption": "AES256"}),
        (
            {"s3_encryption": "kms", "s3_kms_key_id": "my-key"},
            {"x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-aws-kms-key-id": "my-key"},
        ),
    ],
    ids=["s3", "kms"],
)
def test_storage_is_asked_to_encrypt(changes, expected, open_s3, admin, item):
    stored = open_s3(**changes).upload(item)

    metadata = admin.stat_object("pictures", stored.key).metadata
    assert {name: metadata.get(name) for name in expected} == expected


def test_check_leaves_nothing_behind(open_s3, admin):
    storage = open_s3(s3_prefix="a/b")

    storage.check()

    assert keys(admin) == []
    assert unfinished(admin) == []


def test_large_file_goes_in_parts(open_s3, admin, item, monkeypatch):
    monkeypatch.setattr(storage_module, "PART_BYTES", 5 * 2**20)
    item.path.write_bytes(b"a" * (5 * 2**20) + b"b" * 100)

    stored = open_s3().upload(item)

    found = admin.stat_object("pictures", stored.key)
    assert found.size == 5 * 2**20 + 100
    assert found.etag.endswith("-2")
    assert b"".join(open_s3().read(stored.key, 5 * 2**20 - 2, 4)) == b"aabb"
    assert unfinished(admin) == []


def test_reading_beyond_the_end_is_an_error(open_s3, admin, item):
    storage = open_s3()
    stored = storage.upload(item)

    with pytest.raises(OutputError, match="the object has no such bytes"):
        b"".join(storage.read(stored.key, 10_000))


def test_closed_storage_takes_nothing(open_s3, admin, item):
    storage = open_s3()
    storage.close()

    with pytest.raises(OutputError, match="bucket 'pictures' is closed"):
        storage.upload(item)


@pytest.mark.parametrize("name", ["..", "a\nb"])
def test_name_that_is_no_key_is_refused(name, open_s3, admin, tmp_path):
    path = tmp_path / "file.png"
    path.write_bytes(b"x")
    item = UploadItem(path=path, media_type="image/png", facts={"id": name, "index": "0"})

    with pytest.raises(OutputError, match=r"has a (segment|control character)"):
        open_s3(s3_key_template="{id}/{index}").upload(item)
    assert keys(admin) == []
