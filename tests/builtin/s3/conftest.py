"""A bucket on a real server process, for the tests of the storage."""

import importlib
import os

import pytest
from minio import Minio
from s3_server import reset, s3_server

from sglang_core.options.settings import merge
from sglang_core.options.sources import given_in_environment
from sglang_core.testing import make_settings

BUCKET = "pictures"
ACCESS_KEY, SECRET_KEY = "AKIACANARYACCESS", "canary/secret+key"


@pytest.fixture(scope="session")
def server():
    with s3_server(MOTO_S3_CUSTOM_ENDPOINTS="") as address:
        yield address


@pytest.fixture
def admin(server):
    """A client with all rights, and one empty bucket."""
    reset(server)
    client = Minio(server.removeprefix("http://"), "admin", "adminadmin", secure=False, region="us-east-1")
    client.make_bucket(BUCKET)
    yield client
    client._http.clear()


@pytest.fixture(autouse=True)
def _no_keys_of_this_machine(monkeypatch):
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def s3_manager(manager):
    """The built-ins with this plugin."""
    if "s3" not in manager.records:
        manager.register(importlib.import_module("sglang_plugins_builtin.s3"), "s3")
    return manager


@pytest.fixture
def s3_settings(s3_manager, server):
    """Return settings of the test's bucket, with some of them changed; ``None`` takes one away."""

    def settings(**changes):
        values = {
            "cloud_storage_type": "s3",
            "s3_bucket_name": BUCKET,
            "s3_endpoint_url": server,
            "s3_access_key_id": ACCESS_KEY,
            "s3_secret_access_key": SECRET_KEY,
            "s3_timeout_s": 20,
            **changes,
        }
        return make_settings(s3_manager, **{name: value for name, value in values.items() if value is not None})

    return settings


@pytest.fixture
def open_s3(s3_manager, s3_settings):
    """Open the storage of such settings."""
    from sglang_core import open_storage

    opened = []

    def run(**changes):
        opened.append(open_storage(s3_manager, s3_settings(**changes)))
        return opened[-1]

    yield run
    for storage in opened:
        storage.close()


@pytest.fixture
def no_pauses(monkeypatch):
    """Do not wait between attempts."""
    from sglang_plugins_builtin.s3 import storage, transport

    monkeypatch.setattr(transport, "pause_s", lambda attempt: 0.0)
    monkeypatch.setattr(storage, "pause_s", lambda attempt: 0.0)


@pytest.fixture
def from_environment(s3_manager, monkeypatch):
    """Return the settings of a command as variables alone set them."""

    def settings(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        groups = s3_manager.options.for_command("generate")
        return merge(groups, [given_in_environment(groups)])

    return settings
