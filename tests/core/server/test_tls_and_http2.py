import datetime
import ipaddress
import ssl

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from http_process import DEADLINE_S, ServerProcess

from sglang_core import ConfigError
from sglang_core.options.server import ServerOptions
from sglang_core.server.tls import check_certificate


def write_certificate(folder, password=None):
    """Write a certificate for this machine, and its key; return their files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    folder.mkdir(exist_ok=True)
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = write_certificate(folder, b"open sesame")
    with ServerProcess(
        *(folder, "--port", "0", "--ssl-certfile", certificate, "--ssl-keyfile", key),
        environment={"SGLANG_SSL_KEYFILE_PASSWORD": "open sesame"},
    ) as server:
        server.certificate = certificate
        yield server.listening()


def trusting(tls, **settings):
    return tls.client(verify=ssl.create_default_context(cafile=tls.certificate), **settings)


def test_https_is_served_to_who_trusts_the_certificate(tls):
    assert tls.url.startswith("https://")
    with trusting(tls) as client:
        answer = client.get("/liveness")
    assert (answer.status_code, answer.http_version) == (200, "HTTP/1.1")
    with tls.client() as client, pytest.raises(httpx.ConnectError, match="certificate"):
        client.get("/liveness")


def test_http2_is_spoken_with_who_asks_for_it(tls):
    with trusting(tls, http2=True, http1=False) as client:
        answers = [client.post("/test/echo", content=b"x" * size) for size in (0, 1, 70_000)]
        missing = client.get("/nowhere")

    assert {answer.http_version for answer in answers} == {"HTTP/2"}
    assert [answer.json()["num_bytes"] for answer in answers] == [0, 1, 70_000]
    assert missing.json()["error"]["code"] == "not_found"


def test_urls_are_https(tls):
    with trusting(tls) as client:
        assert client.get("/test/url").json()["url"].startswith("https://127.0.0.1:")


def test_plain_http_and_noise_leave_the_tls_server_alive(tls):
    with httpx.Client(timeout=DEADLINE_S, trust_env=False) as client, pytest.raises(httpx.TransportError):
        client.get(tls.url.replace("https", "http") + "/liveness")
    with trusting(tls) as client:
        assert client.get("/liveness").status_code == 200
    assert "Traceback" not in tls.err


def test_http2_without_tls_is_spoken_with_who_knows(client, plain_server):
    with plain_server.client(http2=True, http1=False) as http2:
        large = http2.post("/test/echo", content=b"x" * 150_000)

    assert (large.http_version, large.status_code) == ("HTTP/2", 413)


def test_certificate_and_key_that_do_not_belong_together_are_refused(tmp_path):
    certificate, _ = write_certificate(tmp_path / "a")
    _, key = write_certificate(tmp_path / "b")

    with pytest.raises(ConfigError) as refused:
        check_certificate(ServerOptions(ssl_certfile=certificate, ssl_keyfile=key))

    assert refused.value.problem.endswith(f"--ssl-keyfile {key} do not belong together")
    assert "PEM" in refused.value.remedy


@pytest.mark.parametrize(
    ("password", "problem"), [(None, "no password is given"), ("wrong", "the password does not open it")]
)
def test_wrong_password_of_the_key_is_refused_without_asking(tmp_path, password, problem):
    certificate, key = write_certificate(tmp_path, b"right")

    with pytest.raises(ConfigError) as refused:
        check_certificate(ServerOptions(ssl_certfile=certificate, ssl_keyfile=key, ssl_keyfile_password=password))

    assert refused.value.problem == f"the private key in --ssl-keyfile {key} is encrypted, and {problem}"
    assert "SGLANG_SSL_KEYFILE_PASSWORD" in refused.value.remedy


def test_file_without_what_it_is_given_for_is_refused(tmp_path):
    certificate, key = write_certificate(tmp_path)
    noise = tmp_path / "noise.pem"
    noise.write_text("hello")
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nhello\n-----END CERTIFICATE-----\n" + key.read_text())

    for files, problem, remedy in [
        ({"ssl_certfile": noise}, f"--ssl-certfile {noise} holds no certificate", "a certificate chain"),
        ({"ssl_certfile": key, "ssl_keyfile": certificate}, f"--ssl-certfile {key} holds no certificate", "chain"),
        ({"ssl_certfile": certificate}, f"--ssl-certfile {certificate} holds no private key", "add --ssl-keyfile FILE"),
        ({"ssl_certfile": certificate, "ssl_keyfile": noise}, f"--ssl-keyfile {noise} holds no private key", "in PEM"),
        ({"ssl_certfile": broken}, "can not be used together: ", "in PEM"),
    ]:
        with pytest.raises(ConfigError) as refused:
            check_certificate(ServerOptions(**files))
        assert problem in refused.value.problem
        assert remedy in refused.value.remedy
