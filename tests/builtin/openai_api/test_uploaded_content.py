"""Content that is uploaded and deleted here: from a real server, through a real bucket."""

import io
import re
import time
from urllib.parse import parse_qs, urlsplit

import httpx
import openai
import pytest
from http_process import wait_for
from minio import Minio
from PIL import Image
from real_server import served
from s3_server import Fault, FaultyProxy, s3_error, s3_server

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")
BUCKET = "made"
ENVIRONMENT = {
    "SGLANG_CLOUD_STORAGE_TYPE": "s3",
    "SGLANG_S3_BUCKET_NAME": BUCKET,
    "SGLANG_S3_ACCESS_KEY_ID": "AKIAUPLOADED",
    "SGLANG_S3_SECRET_ACCESS_KEY": "secret-of-the-bucket",
    "SGLANG_S3_MAX_ATTEMPTS": "1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Bucket(FaultyProxy):
    """The way to a bucket, on which signed URLs expire when a test says so."""

    expired_before = ""
    is_away = False

    def fault(self, method, path):
        signed = parse_qs(urlsplit(path).query).get("X-Amz-Date", [""])[0]
        if signed and signed < self.expired_before:
            return s3_error("AccessDenied", message="Request has expired")
        return Fault(kind="drop") if self.is_away and method == "GET" else None

    def expire(self):
        """Let every URL that was signed until now be too old; return when new ones are new enough."""
        moment = int(time.time()) + 1  # the date in a URL has whole seconds
        wait_for(lambda: time.time() > moment, "the next second")
        self.expired_before = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(moment))


@pytest.fixture(scope="module")
def bucket():
    with s3_server(MOTO_S3_CUSTOM_ENDPOINTS="") as address:
        host = address.removeprefix("http://")
        admin = Minio(host, "admin", "adminadmin", secure=False, region="us-east-1")
        admin.make_bucket(BUCKET)
        with Bucket(target=address) as bucket:
            bucket.rule = bucket.fault
            bucket.admin = admin
            yield bucket
        admin._http.clear()


def start(folder, bucket, *words, **settings):
    environment = {**ENVIRONMENT, "SGLANG_S3_ENDPOINT_URL": bucket.address}
    return served(folder, *words, environment=environment, **settings)


@pytest.fixture(scope="module")
def signing(tmp_path_factory, bucket):
    """A server whose clients are sent to the bucket."""
    yield from start(tmp_path_factory.mktemp("signing"), bucket, "--s3-url-kind", "presigned", "--s3-prefix", "a b")


@pytest.fixture(scope="module")
def proxying(tmp_path_factory, bucket):
    """A server that hands clips through."""
    words = ("--uploaded-content", "proxy", "--s3-prefix", "clips")
    yield from start(tmp_path_factory.mktemp("proxying"), bucket, *words, kind="video")


@pytest.fixture
def client(signing):
    with signing.client() as client:
        yield client


def make(client, **fields):
    answer = client.post("/v1/images/generations", json={"prompt": "a circle", **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture(scope="module")
def clip(proxying):
    """The record of a clip."""
    with proxying.client() as client:
        made = client.post("/v1/videos", json={"prompt": "a clip", "num_frames": 9}).json()
        path = f"/v1/videos/{made['id']}"
        wait_for(lambda: client.get(path).json()["status"] in {"completed", "failed"}, "the clip")
        return client.get(path).json()


def test_image_is_uploaded_and_not_here_any_more(client, signing, bucket):
    made = make(client, n=2)

    wait_for(lambda: not list((signing.folder / "out").glob(f"{made['id']}*")), "the end of the local files")
    keys = [found.object_name for found in bucket.admin.list_objects(BUCKET, "a b/", recursive=True)]
    assert {f"a b/{made['id']}_0.png", f"a b/{made['id']}_1.png"} <= set(keys)
    for image in made["data"]:
        assert Image.open(io.BytesIO(httpx.get(image["url"]).content)).size == (16, 16)


def test_content_is_a_redirect_that_works_with_ranges(client, bucket):
    made = make(client, n=2)
    path = f"/v1/images/{made['id']}/content?variant=1"

    redirect = client.get(path)
    part = client.get(path, headers={"Range": "bytes=1-3"}, follow_redirects=True)

    assert redirect.status_code == 307
    assert redirect.headers["location"].startswith(f"{bucket.address}/{BUCKET}/a%20b/{made['id']}_1.png?")
    assert redirect.headers["cache-control"] == "no-store"
    assert (part.status_code, part.content) == (206, b"PNG")
    assert client.get(path.replace("variant=1", "variant=2")).status_code == 404


def test_expired_url_is_made_anew_wherever_it_is_asked_for(client, bucket):
    made = make(client)
    old, path = made["data"][0]["url"], f"/v1/images/{made['id']}"
    assert httpx.get(old).status_code == 200

    bucket.expire()

    assert httpx.get(old).status_code == 403
    listed = next(job for job in client.get("/v1/images").json()["data"] if job["id"] == made["id"])
    events = client.get(f"{path}/events").text
    asked = (client.get(path).json()["url"], listed["url"], listed["outputs"][0]["url"])
    for url in (*asked, client.get(f"{path}/content").headers["location"]):
        assert url != old
        assert httpx.get(url).status_code == 200
    told = re.search(r'"url":"([^"]+)"', events)[1]
    assert httpx.get(told).status_code == 200


def test_repeated_request_gets_a_url_that_works(client, bucket):
    key = {"Idempotency-Key": "uploaded"}
    body = {"prompt": "a circle"}
    first = client.post("/v1/images/generations", json=body, headers=key).json()

    bucket.expire()
    again = client.post("/v1/images/generations", json=body, headers=key).json()

    assert again["id"] == first["id"]
    assert httpx.get(again["data"][0]["url"]).status_code == 200


def test_signature_is_in_answers_and_not_in_the_log(client, signing):
    made = make(client)

    signature = parse_qs(urlsplit(made["data"][0]["url"]).query)["X-Amz-Signature"][0]
    assert signature not in signing.err
    assert ENVIRONMENT["SGLANG_S3_SECRET_ACCESS_KEY"] not in signing.err


def test_image_in_the_answer_is_read_back_where_an_earlier_request_made_it(client):
    key = {"Idempotency-Key": "in the answer"}
    body = {"prompt": "a circle", "response_format": "b64_json", "seed": 3}

    answers = [client.post("/v1/images/generations", json=body, headers=key).json() for _ in range(2)]

    assert answers[0]["data"][0]["b64_json"] == answers[1]["data"][0]["b64_json"]
    assert len(answers[0]["data"][0]["b64_json"]) > 50


def test_clip_is_handed_through_in_ranges(proxying, clip, bucket):
    path = f"/v1/videos/{clip['id']}/content"
    with proxying.client() as client:
        whole = client.get(path)
        parts = {
            text: client.get(path, headers={"Range": f"bytes={text}"})
            for text in ("4-7", "0-0", "-10", "10-", f"{len(whole.content) - 2}-99999", "7-4", "0-1,4-5", "99999999-")
        }
        head = client.head(path, headers={"Range": "bytes=4-7"})
        kept = client.get(path, headers={"If-None-Match": whole.headers["etag"]})
        resumed = client.get(path, headers={"Range": "bytes=4-7", "If-Range": whole.headers["etag"]})
        other = client.get(path, headers={"Range": "bytes=4-7", "If-Range": '"another"'})

    data = whole.content
    stored = bucket.admin.stat_object(BUCKET, f"clips/{clip['id']}.mp4")
    assert (whole.status_code, whole.headers["content-type"], len(data)) == (200, "video/mp4", stored.size)
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["content-disposition"] == f'inline; filename="{clip["id"]}_0.mp4"'
    assert (parts["4-7"].status_code, parts["4-7"].content) == (206, b"ftyp")
    assert parts["4-7"].headers["content-range"] == f"bytes 4-7/{len(data)}"
    assert parts["0-0"].content == data[:1]
    assert parts["-10"].content == data[-10:]
    assert parts["10-"].content == data[10:]
    assert parts[f"{len(data) - 2}-99999"].content == data[-2:]
    assert [parts[text].status_code for text in ("7-4", "0-1,4-5")] == [200, 200]
    assert parts["99999999-"].status_code == 416
    assert parts["99999999-"].headers["content-range"] == f"bytes */{len(data)}"
    assert (head.status_code, head.headers["content-length"], head.content) == (206, "4", b"")
    assert (kept.status_code, kept.content) == (304, b"")
    assert (resumed.status_code, other.status_code) == (206, 200)


def test_variants_of_an_uploaded_clip(proxying, clip):
    with openai.OpenAI(base_url=f"{proxying.url}/v1", api_key="none", max_retries=0) as client:
        video = client.videos.download_content(clip["id"])
        thumbnail = client.videos.download_content(clip["id"], variant="thumbnail")
        sheet = client.videos.download_content(clip["id"], variant="spritesheet")

    assert clip["outputs"][0]["is_uploaded"]
    assert clip["url"].endswith(f"/{BUCKET}/clips/{clip['id']}.mp4")
    assert video.content[4:8] == b"ftyp"
    assert Image.open(io.BytesIO(thumbnail.content)).size == (16, 16)
    assert Image.open(io.BytesIO(sheet.content)).size == (3 * 16, 3 * 16)
    assert not list((proxying.folder / "out").glob("*.mp4"))


def test_bucket_that_is_away_is_said_so_and_the_client_may_come_back(proxying, clip, bucket):
    path = f"/v1/videos/{clip['id']}/content"
    bucket.is_away = True
    try:
        with proxying.client() as client:
            answer = client.get(path)
    finally:
        bucket.is_away = False
    with proxying.client() as client:
        again = client.get(path)

    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "storage_failed")
    assert answer.headers["retry-after"] == "5"
    assert bucket.address not in answer.text
    assert "can not be read from the storage" in proxying.err
    assert again.status_code == 200


def test_deleted_job_takes_its_object_along(client, bucket):
    made = make(client)

    assert client.delete(f"/v1/images/{made['id']}").status_code == 200

    keys = [found.object_name for found in bucket.admin.list_objects(BUCKET, "a b/", recursive=True)]
    assert f"a b/{made['id']}.png" not in keys
    assert client.get(f"/v1/images/{made['id']}/content").status_code == 404
