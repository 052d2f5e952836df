"""Outages, slow and wrong answers: what can be repeated is, what has failed leaves nothing half-made."""

import threading
import traceback

import pytest
from s3_server import Fault, FaultyProxy, first, require_keys, s3_error

from sglang_core import OutputError, UploadItem
from sglang_plugins_builtin.s3 import storage as storage_module

MIB = 2**20
BUSY = Fault(kind="answer", status=503, headers={"Content-Type": "text/plain"}, body=b"busy")


@pytest.fixture
def proxy(server):
    with FaultyProxy(server) as running:
        yield running


@pytest.fixture
def storage(proxy, open_s3, admin, no_pauses):
    return open_s3(s3_endpoint_url=proxy.address, s3_max_attempts=3)


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"abc" * 1000)
    return UploadItem(path=path, media_type="image/png")


@pytest.fixture
def in_parts(tmp_path, monkeypatch):
    """A file of three parts."""
    monkeypatch.setattr(storage_module, "PART_BYTES", 5 * MIB)
    path = tmp_path / "x.mp4"
    path.write_bytes(b"a" * (5 * MIB) + b"b" * (5 * MIB) + b"c")
    return UploadItem(path=path, media_type="video/mp4")


def content(admin, key):
    answer = admin.get_object("pictures", key)
    try:
        return answer.read()
    finally:
        answer.close()
        answer.release_conn()


def keys(admin):
    return [found.object_name for found in admin.list_objects("pictures", recursive=True)]


def unfinished(admin):
    return admin._list_multipart_uploads("pictures").uploads


FAULTS = {
    "drop": Fault(kind="drop"),
    "truncate_upload": Fault(kind="truncate_upload"),
    "lose_answer": Fault(kind="lose_answer"),
    "busy": BUSY,
    "slow_down": s3_error("SlowDown", 503),
    "too_slow": s3_error("RequestTimeout", 400),
}


@pytest.mark.parametrize("name", FAULTS)
def test_upload_survives_two_faults(name, storage, proxy, admin, small):
    proxy.rule = first(2, FAULTS[name])

    stored = storage.upload(small)

    assert content(admin, stored.key) == small.path.read_bytes()
    assert proxy.times("PUT") == 3


@pytest.mark.parametrize("name", FAULTS)
def test_third_fault_is_the_end_and_nothing_is_visible(name, storage, proxy, admin, small):
    proxy.rule = first(3, FAULTS[name])

    with pytest.raises(OutputError, match=r"cannot upload 'x\.png' to bucket 'pictures': ") as caught:
        storage.upload(small)

    assert caught.value.remedy
    assert proxy.times("PUT") == 3
    assert small.path.read_bytes() == b"abc" * 1000
    # an upload whose answer was lost has worked; every other one has left nothing
    assert keys(admin) == (["x.png"] if name == "lose_answer" else [])


@pytest.mark.parametrize("name", ["drop", "truncate_upload", "lose_answer", "busy"])
def test_one_part_is_repeated_not_the_whole_file(name, storage, proxy, admin, in_parts):
    proxy.rule = first(2, FAULTS[name], part="partNumber=2")

    stored = storage.upload(in_parts)

    assert content(admin, stored.key) == in_parts.path.read_bytes()
    parts = [path.partition("partNumber=")[2][0] for method, path in proxy.requests if method == "PUT"]
    assert parts == ["1", "2", "2", "2", "3"]


def test_upload_that_fails_in_the_middle_is_taken_back(storage, proxy, admin, in_parts):
    proxy.rule = first(3, BUSY, part="partNumber=3")

    with pytest.raises(OutputError, match="it answers with status 503"):
        storage.upload(in_parts)

    assert keys(admin) == []
    assert unfinished(admin) == []


def test_lost_answer_to_the_last_word_is_found_to_have_worked(storage, proxy, admin, in_parts):
    proxy.rule = first(1, Fault(kind="lose_answer"), method="POST", part="uploadId=")

    stored = storage.upload(in_parts)

    assert content(admin, stored.key) == in_parts.path.read_bytes()
    assert proxy.times("PUT") == 3


def test_success_that_is_an_error_in_its_body_is_no_success(storage, proxy, admin, in_parts):
    proxy.rule = first(1, s3_error("InternalError", 200), method="POST", part="uploadId=")

    stored = storage.upload(in_parts)

    assert content(admin, stored.key) == in_parts.path.read_bytes()
    assert proxy.times("PUT") == 6


def test_success_that_never_comes_is_an_error(storage, proxy, admin, in_parts):
    proxy.rule = first(9, s3_error("InternalError", 200), method="POST", part="uploadId=")

    with pytest.raises(OutputError, match="the storage did not keep it"):
        storage.upload(in_parts)

    assert keys(admin) == []


def test_older_object_of_the_name_is_no_proof_of_success(storage, proxy, admin, in_parts):
    admin.fput_object("pictures", "x.mp4", str(in_parts.path))
    proxy.rule = first(9, s3_error("InternalError", 200), method="POST", part="uploadId=")

    with pytest.raises(OutputError, match="the storage did not keep it"):
        storage.upload(in_parts)


def test_storage_that_says_nothing_is_given_up(proxy, open_s3, admin, small, no_pauses):
    storage = open_s3(s3_endpoint_url=proxy.address, s3_max_attempts=2, s3_timeout_s=0.3)
    proxy.rule = first(2, Fault(kind="hang"))

    with pytest.raises(OutputError, match="does not answer in time") as caught:
        storage.upload(small)

    assert "--s3-timeout-s" in caught.value.remedy


def test_address_where_nobody_listens_is_named_as_such(open_s3, small, no_pauses):
    storage = open_s3(s3_endpoint_url="http://127.0.0.1:9", s3_max_attempts=2)

    with pytest.raises(OutputError, match="nothing answers at the endpoint") as caught:
        storage.upload(small)

    assert "SGLANG_S3_ENDPOINT_URL" in caught.value.remedy


ANSWERS = {
    "AccessDenied": ("access is denied", "s3:PutObject"),
    "NoSuchBucket": ("there is no such bucket", "SGLANG_S3_BUCKET_NAME"),
    "InvalidAccessKeyId": ("the access key is unknown there", "SGLANG_S3_ACCESS_KEY_ID"),
    "SignatureDoesNotMatch": ("does not fit the access key", "SGLANG_S3_SECRET_ACCESS_KEY"),
    "ExpiredToken": ("session token has expired", "SGLANG_S3_SESSION_TOKEN"),
    "RequestTimeTooSkewed": ("clock of this machine is wrong", "NTP"),
    "AuthorizationHeaderMalformed": ("in another region", "SGLANG_S3_REGION_NAME"),
    "QuotaExceeded": ("the quota there is used up", "quota"),
    "KMS.NotFoundException": ("no such KMS key", "SGLANG_S3_KMS_KEY_ID"),
    "SomethingNew": (r"the storage refuses it \(SomethingNew: said the server\)", "repeat it later"),
}


@pytest.mark.parametrize("code", ANSWERS)
def test_answer_that_repeating_does_not_change_is_said_at_once(code, storage, proxy, small):
    problem, remedy = ANSWERS[code]
    proxy.rule = first(9, s3_error(code))

    with pytest.raises(OutputError, match=problem) as caught:
        storage.upload(small)

    assert remedy in caught.value.remedy
    assert proxy.times("PUT") == 1


def test_web_server_that_is_no_storage_is_named_as_such(storage, proxy, small):
    proxy.rule = first(9, Fault(kind="answer", status=404, body=b"<html>", headers={"Content-Type": "text/html"}))

    with pytest.raises(OutputError, match=r"what answers there is no S3 storage \(status 404\)"):
        storage.upload(small)


def test_wrong_bucket_is_found_by_the_check(open_s3, admin):
    with pytest.raises(OutputError, match="bucket 'elsewhere' cannot be written to: there is no such bucket"):
        open_s3(s3_bucket_name="elsewhere").check()


def test_unknown_key_is_found_by_the_check(open_s3, admin, server):
    storage = open_s3()
    require_keys(server)
    try:
        with pytest.raises(OutputError, match="'pictures' cannot be written to: the access key is unknown there"):
            storage.check()
    finally:
        require_keys(server, is_required=False)


def test_reading_goes_on_where_it_broke_off(storage, proxy, admin, small):
    data = bytes(range(256)) * 2000
    small.path.write_bytes(data)
    stored = storage.upload(small)
    proxy.rule = first(2, Fault(kind="truncate_answer"), method="GET")

    assert b"".join(storage.read(stored.key, 10)) == data[10:]
    assert proxy.times("GET") == 3


def test_object_that_is_replaced_while_it_is_read_is_an_error(storage, proxy, admin, small):
    small.path.write_bytes(bytes(200_000))
    stored = storage.upload(small)
    proxy.rule = first(1, Fault(kind="truncate_answer"), method="GET")
    chunks = storage.read(stored.key)
    next(chunks)
    small.path.write_bytes(b"1" * 200_000)
    storage.upload(small)

    with pytest.raises(OutputError, match=r"cannot read 'x\.png'"):
        list(chunks)


def test_closing_ends_a_pause(proxy, open_s3, admin, small, monkeypatch):
    from sglang_plugins_builtin.s3 import transport

    paused = threading.Event()

    def long_pause(attempt):
        paused.set()
        return 3600.0

    monkeypatch.setattr(transport, "pause_s", long_pause)
    storage = open_s3(s3_endpoint_url=proxy.address)
    proxy.rule = first(9, BUSY)
    failures = []

    def upload():
        try:
            storage.upload(small)
        except OutputError as error:
            failures.append(error.problem)

    thread = threading.Thread(target=upload)
    thread.start()
    assert paused.wait(60)
    storage.close()
    thread.join(60)  # the pause takes an hour

    assert failures


def test_pauses_grow_and_differ():
    from sglang_plugins_builtin.s3.transport import pause_s

    for attempt, longest in enumerate([0.5, 1, 2, 4, 8, 16, 20, 20], start=1):
        pauses = {pause_s(attempt) for _ in range(20)}
        assert all(longest / 2 <= pause <= longest for pause in pauses)
        assert len(pauses) > 1


def test_no_secret_is_in_an_error_whatever_the_storage_answers(proxy, open_s3, admin, small, no_pauses):
    secrets = ("AKIACANARYACCESS", "canary/secret+key", "canary-token")
    storage = open_s3(s3_endpoint_url=proxy.address, s3_session_token="canary-token", s3_max_attempts=1)
    echo = " ".join([*secrets, "X-Amz-Signature=0123abcd", "AWS4-HMAC-SHA256 Credential=AKIAX/2024, Signature=77ff"])
    for fault in (
        s3_error("Odd", message=echo),
        s3_error(secrets[1], message=echo),
        Fault(kind="answer", status=400, body=echo.encode(), headers={"Content-Type": "text/plain"}),
        Fault(kind="answer", status=500, body=echo.encode(), headers={"Content-Type": "text/plain"}),
        Fault(kind="drop"),
    ):
        proxy.rule = first(1, fault)
        with pytest.raises(OutputError) as caught:
            storage.upload(small)
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
        assert not [word for word in (*secrets, "0123abcd", "77ff", "AKIAX") if word in shown]
