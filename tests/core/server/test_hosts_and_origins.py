import pytest

from sglang_core.server.host_check import host_name, is_trusted


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("example.com", "example.com"),
        ("Example.COM:8080", "example.com"),
        ("example.com.", "example.com"),
        ("[::1]:30000", "::1"),
        ("127.0.0.1", "127.0.0.1"),
        ("", None),
        ("a b", None),
        ("example.com/path", None),
        ("user@example.com", None),
        ("example.com:port", None),
        ("example.com:99999", None),
        ("[::1", None),
        ("example.com?x", None),
    ],
)
def test_host_header_is_read(header, name):
    assert host_name(header) == name


@pytest.mark.parametrize(
    ("name", "hosts", "is_good"),
    [
        ("localhost", ("loopback",), True),
        ("127.8.8.8", ("loopback",), True),
        ("::1", ("loopback",), True),
        ("app.localhost", ("loopback",), True),
        ("evil.com", ("loopback",), False),
        ("localhost.evil.com", ("loopback",), False),
        ("127.0.0.1.nip.io", ("loopback",), False),
        ("a.example.com", ("*.example.com",), True),
        ("example.com", ("*.example.com",), False),
        ("evilexample.com", ("*.example.com",), False),
        ("anything", ("*",), True),
        ("::1", ("[::1]",), True),
    ],
)
def test_host_is_among_the_trusted(name, hosts, is_good):
    assert is_trusted(name, hosts) == is_good


@pytest.mark.parametrize("host", ["evil.com", "localhost.evil.com:30000", "", "a b", "127.0.0.1.nip.io"])
def test_local_server_is_called_by_no_other_name(client, host):
    answer = client.get("/test/echo", headers={"Host": host})

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "untrusted_host")
    assert "--trusted-host" in answer.text
    assert client.get("/health", headers={"Host": "10.1.2.3"}).status_code == 200  # a balancer's probe


def test_pages_of_other_origins_may_not_send(client, plain_server):
    def post(**headers):
        return client.post("/test/echo", content=b"x", headers=headers).status_code

    assert post() == 200
    assert post(Origin=plain_server.url) == 200
    assert post(Origin="http://evil.com") == 403
    assert post(Origin="null") == 403
    assert post(Origin="http://[") == 403
    assert post(Origin=f"http://evil.com@127.0.0.1:{plain_server.port}") == 403
    assert client.get("/test/echo", headers={"Origin": "http://evil.com"}).status_code == 200


def test_no_origin_may_read_unless_asked_for(client):
    answer = client.get("/test/echo", headers={"Origin": "http://evil.com"})

    assert "access-control-allow-origin" not in answer.headers
    assert client.options("/test/echo", headers={"Origin": "http://evil.com"}).status_code == 405


def test_origins_trusted_hosts_and_the_public_address_are_settings(start):
    server = start(
        *("--cors-origin", "https://app.example.com", "--trusted-host", "*.internal", "localhost", "127.0.0.1"),
        *("--public-url", "https://images.example.com/base/", "--rate-limit", "2/hour"),
    ).ready()
    ask = {"Origin": "https://app.example.com", "Access-Control-Request-Method": "POST"}
    with server.client() as client:
        preflight = client.options("/test/echo", headers=ask)
        other = client.options("/test/echo", headers={**ask, "Origin": "https://evil.com"})
        posts = [client.post("/test/echo", headers={"Origin": "https://app.example.com"}) for _ in range(3)]

        assert preflight.headers["access-control-allow-origin"] == "https://app.example.com"
        assert "access-control-allow-credentials" not in preflight.headers
        assert "access-control-allow-origin" not in other.headers
        assert posts[0].headers["access-control-allow-origin"] == "https://app.example.com"
        assert "x-request-id" in posts[0].headers["access-control-expose-headers"]
        assert posts[0].headers["cross-origin-resource-policy"] == "cross-origin"
        assert [answer.status_code for answer in posts] == [200, 200, 429]
        assert client.get("/test/url").json() == {"url": "https://images.example.com/base/v1/x"}
        assert client.get("/test/echo", headers={"Host": "a.internal"}).status_code == 200
        assert client.get("/test/echo", headers={"Host": "images.example.com"}).status_code == 200
        assert client.get("/test/echo", headers={"Host": "evil.com"}).status_code == 400


def test_url_names_the_host_of_the_request(client, plain_server):
    assert client.get("/test/url").json() == {"url": f"http://127.0.0.1:{plain_server.port}/v1/x"}
    named = client.get("/test/url", headers={"Host": f"localhost:{plain_server.port}"})
    assert named.json() == {"url": f"http://localhost:{plain_server.port}/v1/x"}
