"""What is set wrong is said before anything is sent; what is secret is shown nowhere."""

import json

import pytest
from s3_server import FaultyProxy, s3_error

from sglang_core import ConfigError, UnavailableError, open_storage
from sglang_core.testing import make_settings

CANARIES = {
    "SGLANG_S3_ACCESS_KEY_ID": "AKIACANARYACCESS",
    "SGLANG_S3_SECRET_ACCESS_KEY": "canary/secret+key",
    "SGLANG_S3_SESSION_TOKEN": "canary-token",
}

WRONG = {
    "no bucket": ({"s3_bucket_name": None}, "no bucket is set", "SGLANG_S3_BUCKET_NAME"),
    "bad bucket": ({"s3_bucket_name": "Not A Bucket"}, "invalid bucket name", "3 to 63"),
    "secret alone": ({"s3_access_key_id": None}, "s3_access_key_id is not", "SGLANG_S3_ACCESS_KEY_ID"),
    "key alone": ({"s3_secret_access_key": None}, "s3_secret_access_key is not", "SGLANG_S3_SECRET_ACCESS_KEY"),
    "token alone": (
        {"s3_session_token": "x", "s3_access_key_id": None, "s3_secret_access_key": None},
        "does not apply: no access key is set",
        "SGLANG_S3_ACCESS_KEY_ID",
    ),
    "endpoint path": ({"s3_endpoint_url": "https://example.com/s3"}, "an endpoint takes no path", "minio.example.com"),
    "endpoint scheme": ({"s3_endpoint_url": "example.com:9000"}, "begins with https://", "s3_endpoint_url"),
    "endpoint user": ({"s3_endpoint_url": "https://me:pw@example.com"}, "no user name or password", "s3_endpoint_url"),
    "endpoint query": ({"s3_endpoint_url": "https://example.com?a=b"}, "takes no query", "s3_endpoint_url"),
    "endpoint port": ({"s3_endpoint_url": "https://example.com:99999"}, "invalid port", "scheme, host and port"),
    "region": ({"s3_region_name": "no region"}, "invalid region", "scheme, host and port"),
    "template field": ({"s3_key_template": "{user}"}, r"no field \{user\} \(known: \{name\}", "{date}/{id}"),
    "template format": ({"s3_key_template": "{name.__class__}"}, "is no field", "{date}/{id}"),
    "template brace": ({"s3_key_template": "{name"}, "is no template", "{date}/{id}"),
    "template one key": ({"s3_key_template": "{date}.{extension}"}, "different outputs would get one key", "{date}"),
    "template id only": ({"s3_key_template": "{id}"}, "different outputs would get one key", "{date}"),
    "prefix": ({"s3_prefix": "a/../b"}, "segment that is empty, '.' or '..'", "--s3-prefix"),
    "long prefix": ({"s3_prefix": "a" * 1100}, "more than 1024 bytes", "--s3-prefix"),
    "kms without key": ({"s3_encryption": "kms"}, "kms needs a key", "--s3-kms-key-id"),
    "key without kms": ({"s3_kms_key_id": "k"}, "s3_encryption is none, not kms", "--s3-encryption kms"),
    "signed cdn": (
        {"s3_url_kind": "presigned", "s3_public_url": "https://cdn.example.com"},
        "URLs are signed for the endpoint itself",
        "--s3-url-kind public",
    ),
    "expiry": ({"s3_url_expiry_s": 604801}, "s3_url_expiry_s", "s3_url_expiry_s"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_setting_is_named_with_a_remedy(name, s3_manager, s3_settings):
    changes, problem, remedy = WRONG[name]

    with pytest.raises(ConfigError, match=problem) as caught:
        open_storage(s3_manager, s3_settings(**changes))

    assert remedy in caught.value.remedy
    assert "pw" not in caught.value.problem


@pytest.fixture
def s3_settings(s3_manager):
    """Settings of a bucket that nobody asks."""

    def settings(**changes):
        values = {
            "cloud_storage_type": "s3",
            "s3_bucket_name": "pictures",
            "s3_access_key_id": "AKIA",
            "s3_secret_access_key": "secret",
            **changes,
        }
        return make_settings(s3_manager, **{name: value for name, value in values.items() if value is not None})

    return settings


def test_variable_that_is_wrong_is_named(from_environment):
    with pytest.raises(ConfigError, match=r"^\$SGLANG_S3_ENDPOINT_URL: an address takes no user name") as caught:
        from_environment(SGLANG_S3_ENDPOINT_URL="https://user:canary@example.com")

    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("kind", ["gcs", "S4"])
def test_unknown_storage_is_an_error_that_names_the_known_ones(kind, s3_manager, from_environment):
    settings = from_environment(SGLANG_CLOUD_STORAGE_TYPE=kind)

    with pytest.raises(
        ConfigError, match=rf"^\$SGLANG_CLOUD_STORAGE_TYPE: unknown storage '{kind.lower()}' \(known: s3\)"
    ):
        open_storage(s3_manager, settings)


@pytest.mark.parametrize("kind", ["s3", "S3", " s3 "])
def test_variables_alone_configure_a_storage(kind, s3_manager, from_environment):
    settings = from_environment(SGLANG_CLOUD_STORAGE_TYPE=kind, SGLANG_S3_BUCKET_NAME="pictures", **CANARIES)

    open_storage(s3_manager, settings).close()


def test_nothing_is_opened_where_nothing_is_chosen(s3_manager, from_environment):
    assert open_storage(s3_manager, from_environment(SGLANG_S3_BUCKET_NAME="pictures")) is None


def test_setting_of_a_storage_that_is_not_chosen_is_refused(s3_manager):
    with pytest.raises(
        ConfigError, match="'s3_prefix' does not apply: nothing is uploaded to the storage 's3'"
    ) as caught:
        open_storage(s3_manager, make_settings(s3_manager, s3_prefix="a"))

    assert "--cloud-storage-type s3" in caught.value.remedy


def test_storage_without_its_package_is_unavailable(s3_manager, s3_settings, monkeypatch):
    monkeypatch.setattr("sglang_plugins_builtin.s3.uploader.find_spec", lambda name: None)

    with pytest.raises(UnavailableError, match="the package minio is not installed") as caught:
        open_storage(s3_manager, s3_settings())
    assert caught.value.remedy == "pip install minio"


@pytest.fixture
def canaries(s3_manager, monkeypatch):
    """Set secrets that a text can be searched for."""
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SGLANG_CLOUD_STORAGE_TYPE", "s3")
    monkeypatch.setenv("SGLANG_S3_BUCKET_NAME", "pictures")
    return tuple(CANARIES.values())


def test_no_secret_is_in_any_output_of_a_failing_run(
    sglang, s3_manager, canaries, tiny_model, tmp_path, monkeypatch, no_pauses
):
    out = tmp_path / "out"
    words = ["--model-path", tiny_model, "--output-path", out, "--prompt", "a", "--log-level", "debug"]
    words += ["--perf-dump-path", tmp_path / "perf.json", "--output-file-name", "x.png"]
    monkeypatch.setenv("SGLANG_DEBUG", "1")
    with FaultyProxy("http://127.0.0.1:9") as proxy:
        monkeypatch.setenv("SGLANG_S3_ENDPOINT_URL", proxy.address)
        refusal = s3_error("SomethingNew", message=" ".join(canaries))
        proxy.rule = lambda method, path: refusal
        done = sglang("generate", *words, "--json")
        again = sglang("uploads", out, "--retry")
        printed = [sglang(command, "--print-config") for command in ("generate", "uploads", "explain")]
        explained = sglang("explain", "--model-path", tiny_model, "--prompt", "a", "--json")
        checked = repr(s3_manager.checks.get("s3").run())

    assert done.code == 0
    assert again.code == 7
    assert "SomethingNew" in checked
    texts = [checked, *(text for run in (done, again, explained, *printed) for text in (run.out, run.err))]
    texts += [path.read_bytes().decode("latin-1") for path in [*out.iterdir(), tmp_path / "perf.json"]]
    assert len(list(out.iterdir())) == 2
    assert not [canary for canary in canaries for text in texts if canary in text]


@pytest.mark.parametrize(
    "words",
    [
        ["--s3-secret-access-key", "canary-one", "--s3-secret-access-kee", "canary-two"],
        ["--s3-secret-access-key=canary-one", "--seed", "x"],
        ["--s3-secret-access-key", "canary-one", "--s3-url-kind", "none"],
    ],
    ids=["unknown flag", "wrong seed", "wrong choice"],
)
def test_no_secret_is_in_the_error_of_a_wrong_command_line(words, sglang, s3_manager):
    done = sglang("generate", "--prompt", "a", *words)

    assert done.code == 2
    assert "canary" not in done.out + done.err


def test_secret_of_a_wrong_type_is_not_repeated(sglang, s3_manager, tmp_path):
    config = tmp_path / "run.json"
    config.write_text(json.dumps({"s3_secret_access_key": 123456789}))

    done = sglang("generate", "--prompt", "a", "--config", config)

    assert done.code == 2
    assert "run.json:1:2 (s3_secret_access_key): the value is not right" in done.err
    assert "123456789" not in done.err


def test_settings_do_not_show_their_secrets(from_environment):
    shown = repr(from_environment(**CANARIES))

    assert not [value for value in CANARIES.values() if value in shown]


def test_doctor_says_that_no_bucket_is_used(s3_manager):
    found = s3_manager.checks.get("s3").run()

    assert (found.status, found.message) == ("ok", "not used: SGLANG_CLOUD_STORAGE_TYPE is not s3")
