import hashlib
import os

import pytest
from http_process import ServerProcess, wait_for

from sglang_core import ConfigError
from sglang_core.options.server import ServerOptions
from sglang_core.server.auth import read_keys
from sglang_core.server.key_file import read_key_file

ALICE, BOB, ROOT = "alice-" + "a" * 30, "bob-" + "b" * 30, "root-" + "r" * 30
FILE = f"""
keys:
- {{name: alice, key: {ALICE}, scopes: [generate], priority: 5, rate: 3/hour}}
- {{name: bob, sha256: "{hashlib.sha256(BOB.encode()).hexdigest()}", scopes: [admin]}}
"""


@pytest.fixture(scope="module")
def keyed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keyed")
    path = folder / "keys.yaml"
    path.write_text(FILE)
    path.chmod(0o644)
    with ServerProcess(folder, "--port", "0", "--api-key-file", path, environment={"SGLANG_API_KEY": ROOT}) as server:
        server.listening()
        server.wait_with(ROOT)
        yield server


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/liveness", {}, 200, None),
        ("/health", {}, 200, None),
        ("/health", bearer("wrong"), 200, None),
        ("/test/echo", {}, 401, "missing_api_key"),
        ("/test/echo", bearer("wrong"), 401, "invalid_api_key"),
        ("/test/echo", {"Authorization": ALICE}, 401, "invalid_api_key"),
        ("/test/echo", {"Authorization": f"Basic {ALICE}"}, 401, "invalid_api_key"),
        ("/test/echo", {"Authorization": "Bearer"}, 401, "invalid_api_key"),
        ("/test/echo", {"Authorization": b"Bearer \xff\xfe"}, 401, "invalid_api_key"),
        ("/test/echo", {"X-Api-Key": ALICE}, 401, "missing_api_key"),
        ("/test/echo", bearer(ALICE), 200, None),
        ("/test/echo", bearer(ROOT), 200, None),
        ("/test/echo", {"Authorization": f"bearer   {ROOT}"}, 200, None),
        ("/test/echo", bearer(BOB), 403, "missing_scope"),
        ("/test/admin", bearer(BOB), 200, None),
        ("/test/admin", bearer(ALICE), 403, "missing_scope"),
        ("/test/admin", {}, 401, "missing_api_key"),
        ("/model_info", {}, 401, "missing_api_key"),
        ("/model_info", bearer(BOB), 200, None),
        ("/nowhere", {}, 404, "not_found"),
    ],
)
def test_route_asks_for_the_right_key(keyed, path, headers, status, code):
    with keyed.client() as client:
        answer = client.get(path, headers=headers)

    assert answer.status_code == status
    if code is not None:
        assert answer.json()["error"]["code"] == code
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert ALICE not in answer.text


def test_two_authorization_headers_are_no_key(keyed):
    with keyed.client() as client:
        answer = client.get("/test/echo", headers=[("Authorization", f"Bearer {ROOT}"), ("Authorization", "Bearer x")])

    assert answer.status_code == 401


def test_rate_of_a_key_is_its_own_and_reading_is_free(keyed):
    with keyed.client(headers=bearer(ALICE)) as client:
        answers = [client.post("/test/echo") for _ in range(4)]
        reads = [client.get("/test/echo") for _ in range(5)]
    with keyed.client(headers=bearer(ROOT)) as client:
        others = [client.post("/test/echo") for _ in range(5)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].json()["error"]["type"] == "rate_limit_error"
    assert 0 < int(answers[-1].headers["retry-after"]) <= 1200
    assert {answer.status_code for answer in reads + others} == {200}


def test_log_has_names_of_keys_and_never_keys(keyed):
    with keyed.client(headers=bearer(ALICE)) as client:
        client.get("/test/echo")

    wait_for(lambda: "GET /test/echo 200" in keyed.err and "key=alice" in keyed.err, "the line of the request")
    for secret in (ALICE, BOB, ROOT):
        assert secret not in keyed.err


def test_file_of_keys_that_others_may_read_is_warned_of(keyed):
    assert "others may read it: chmod 600" in keyed.err


def test_jobs_of_a_key_are_owned_by_the_same_name_when_other_keys_come():
    def names(*keys):
        ring = read_keys(ServerOptions(api_key=keys))
        return [ring.find(key.encode()).name for key in keys]

    assert names(ALICE) == names(ROOT, ALICE)[1:]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("keys: []", "holds no list of keys"),
        ("key: x", "unknown key 'key'"),
        ("keys: [alice]", "entry 1 is no mapping"),
        ("keys: [{key: abc}]", "entry 1: the name is missing"),
        ("keys: [{name: 'a b', key: abc}]", "no plain word"),
        ("keys: [{name: a}]", "exactly one of key and sha256"),
        ("keys: [{name: a, key: s3cret, sha256: b}]", "exactly one of key and sha256"),
        ("keys: [{name: a, sha256: abc}]", "64 hexadecimal digits"),
        ("keys: [{name: a, key: s3cret, scope: [generate]}]", "unknown key 'scope'"),
        ("keys: [{name: a, key: s3cret, scopes: [everything]}]", "scopes are wrong"),
        ("keys: [{name: a, key: s3cret, scopes: generate}]", "scopes are wrong"),
        ("keys: [{name: a, key: s3cret, priority: high}]", "no whole number"),
        ("keys: [{name: a, key: s3cret, priority: 2000}]", "the priority is 2000, it goes from -1000 to 1000"),
        ("keys: [{name: a, key: s3cret, priority: -1001}]", "the priority is -1001, it goes from -1000 to 1000"),
        ("keys: [{name: a, key: s3cret, rate: often}]", "60/minute"),
        ("keys: [{name: a, key: 'two words'}]", "no word of ASCII"),
        ("keys: [{name: a, key: s3cret}, {name: a, key: other}]", "'a' is given twice"),
        ("keys: [{name: a, key: s3cret}, {name: b, key: s3cret}]", "under two names"),
        ("keys: [{name: a, key: s3cret", "keys.yaml:1"),
    ],
)
def test_wrong_file_of_keys_is_refused_without_showing_a_key(tmp_path, text, problem):
    path = tmp_path / "keys.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError) as refused:
        read_keys(ServerOptions(api_key_file=path))

    assert problem in refused.value.problem
    assert str(path) in refused.value.problem or "twice" in problem or "two names" in problem
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("priority", ["high", "2000"])
def test_wrong_priority_of_a_key_is_answered_with_the_right_ones(tmp_path, priority):
    path = tmp_path / "keys.yaml"
    path.write_text(f"keys: [{{name: a, key: s3cret, priority: {priority}}}]")

    with pytest.raises(ConfigError) as refused:
        read_key_file(path)

    assert refused.value.remedy == "give priority a whole number from -1000 to 1000, or leave it out for 0"


def test_json_file_of_keys_is_read(tmp_path):
    path = tmp_path / "keys.json"
    path.write_text('{"keys": [{"name": "a", "key": "k", "scopes": ["generate", "admin"]}]}')
    os.chmod(path, 0o600)

    [(digest, key)] = read_key_file(path)

    assert digest == hashlib.sha256(b"k").digest()
    assert (key.name, key.scopes, key.priority, key.rate) == ("a", {"generate", "admin"}, 0, None)
