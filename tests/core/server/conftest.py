from itertools import count

import pytest
from http_process import ServerProcess

_numbers = count()


@pytest.fixture
def start(tmp_path):
    """Start servers that end with the test."""
    started = []

    def start(*words, folder=None, **settings):
        words = words if {"--uds", "--fd", "--port"} & set(words) else ("--port", "0", *words)
        server = ServerProcess(folder or tmp_path / f"server{next(_numbers)}", *words, **settings)
        started.append(server)
        return server

    yield start
    for server in started:
        server.__exit__()


@pytest.fixture(scope="session")
def plain_server(tmp_path_factory):
    """A server as it is without settings, for tests that leave it as it was."""
    with ServerProcess(tmp_path_factory.mktemp("plain"), "--port", "0", "--max-body-bytes", "100000") as server:
        yield server.ready()


@pytest.fixture
def client(plain_server):
    """A client of ``plain_server``."""
    with plain_server.client() as client:
        yield client
