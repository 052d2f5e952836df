import os

import pytest
from http_process import PROGRAM


def test_serves_in_the_loop_of_uvloop(client):
    pytest.importorskip("uvloop")

    assert "uvloop.loop" in client.get("/test/modules").json()


def test_serves_in_pythons_loop_where_uvloop_is_not_installed(start, tmp_path):
    (tmp_path / "uvloop.py").write_text("raise ImportError('not installed')\n")
    server = start(environment={"PYTHONPATH": os.pathsep.join([str(tmp_path), str(PROGRAM.parent)])}).ready()

    with server.client() as client:
        modules = client.get("/test/modules").json()
        answers = [client.get(path).status_code for path in ("/health", "/v1/models", "/nowhere")]

    assert "uvloop.loop" not in modules
    assert answers == [200, 200, 404]
    assert server.stop() == 0
