"""A file of 200 MB."""

import hashlib
import os
import subprocess
import sys

import pytest

MB = 10**6
_UPLOAD = """
import resource, sys
from pathlib import Path
import sglang_plugins_builtin.s3 as plugin
from sglang_core import UploadItem, open_storage
from sglang_core.testing import bare_manager, make_settings

endpoint, path = sys.argv[1:]
manager = bare_manager(host_options=True)
manager.register(plugin, "s3")
settings = make_settings(manager, cloud_storage_type="s3", s3_bucket_name="pictures", s3_endpoint_url=endpoint,
                         s3_access_key_id="AKIA", s3_secret_access_key="secret")
storage = open_storage(manager, settings)
storage.check()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
storage.upload(UploadItem(path=Path(path), media_type="video/mp4"))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.skipif(not os.environ.get("SGLANG_TEST_LONG"), reason="takes a minute; set SGLANG_TEST_LONG=1")
def test_large_file_is_uploaded_in_little_memory(server, admin, tmp_path):
    path = tmp_path / "long.mp4"
    with path.open("wb") as file:
        file.truncate(200 * MB)
        for megabyte in range(0, 200, 10):
            file.seek(megabyte * MB)
            file.write(os.urandom(1000))

    done = subprocess.run(
        [sys.executable, "-c", _UPLOAD, server, path], capture_output=True, text=True, check=False, timeout=280
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 80 * MB
    answer = admin.get_object("pictures", "long.mp4")
    digest = hashlib.sha256()
    for chunk in answer.stream(MB):
        digest.update(chunk)
    answer.close()
    answer.release_conn()
    with path.open("rb") as file:
        assert digest.hexdigest() == hashlib.file_digest(file, "sha256").hexdigest()
    assert admin.stat_object("pictures", "long.mp4").etag.endswith("-12")
