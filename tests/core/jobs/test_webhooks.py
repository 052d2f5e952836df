"""The end of a job is announced, signed, until the receiver has it."""

import asyncio
import http.server
import json
import sqlite3
import threading
import time
from typing import ClassVar

import pytest
from scripted_supervisor import ScriptedSupervisor, a_job

from sglang_core import ConfigError, RequestError
from sglang_core.jobs import webhooks

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Receiver(http.server.BaseHTTPRequestHandler):
    """Answers with the statuses it is given, then with 200, and keeps what it got."""

    statuses: ClassVar[list[int]] = []
    got: ClassVar[list[tuple[dict[str, str], bytes]]] = []
    may_answer = threading.Event()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.may_answer.wait(60)
        self.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.statuses.pop(0) if self.statuses else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Stay off the terminal."""


@pytest.fixture
def url():
    Receiver.statuses.clear()
    Receiver.got.clear()
    Receiver.may_answer.set()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}/hook"
        Receiver.may_answer.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def quick_retries(monkeypatch):
    monkeypatch.setattr(
        webhooks.WebhookSender.__init__, "__kwdefaults__", {"delays_s": (0.02,) * 3, "clock": time.time}
    )


def options(**changes):
    return {"webhook_secret": SECRET, "webhook_allow_private": True, **changes}


def test_the_end_of_a_job_is_announced_as_openai_s_client_expects(place, url, until):
    openai = pytest.importorskip("openai")

    async def scenario():
        async with place.running(**options()) as service:
            job = await service.wait((await service.submit(a_job(1, kind="video", webhook_url=url))).id)
            await until(lambda: Receiver.got and not service.statistics().waiting_webhooks)
            kept = await service.get(job.id)
            assert kept.webhook.delivered_at is not None
            assert (kept.webhook.attempts, kept.webhook.next_at) == (1, None)
            return job

    job = asyncio.run(scenario())
    [(headers, body)] = Receiver.got
    assert json.loads(body) == {
        "id": f"evt_{job.id}",
        "object": "event",
        "type": "video.completed",
        "created_at": int(job.completed_at),
        "data": {"id": job.id},
    }
    assert headers["content-type"] == "application/json"
    client = openai.OpenAI(api_key="none", webhook_secret=SECRET)
    client.webhooks.verify_signature(body, headers)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.verify_signature(body.replace(b"completed", b"cancelled"), headers)


def test_failed_deliveries_are_repeated_with_the_same_id(place, url, until, quick_retries):
    Receiver.statuses += [500, 302]

    async def scenario():
        async with place.running(**options()) as service:
            job = await service.submit(a_job(1, webhook_url=url, settings={"outcome": "failed"}))
            await until(lambda: len(Receiver.got) == 3 and not service.statistics().waiting_webhooks)
            kept = await service.get(job.id)
            assert (kept.webhook.attempts, kept.webhook.problem) == (3, None)

    asyncio.run(scenario())
    assert {headers["webhook-id"] for headers, _ in Receiver.got} == {f"evt_{a_job(1).id}"}
    assert json.loads(Receiver.got[0][1])["type"] == "image.failed"


@pytest.mark.parametrize(("statuses", "attempts"), [([410], 1), ([503] * 9, 4)])
def test_a_delivery_is_given_up_in_the_end(statuses, attempts, place, url, until, quick_retries):
    Receiver.statuses += statuses

    async def scenario():
        async with place.running(**options()) as service:
            job = await service.wait((await service.submit(a_job(1, webhook_url=url))).id)
            await until(lambda: len(Receiver.got) == attempts and not service.statistics().waiting_webhooks)
            kept = await service.get(job.id)
            assert (kept.webhook.next_at, kept.webhook.delivered_at) == (None, None)
            assert kept.webhook.problem == f"{url} answers {statuses[0]}"

    asyncio.run(scenario())


def test_a_restart_goes_on_with_deliveries(place, url, until):
    Receiver.may_answer.clear()

    async def scenario():
        async with place.running(**options()) as service:
            await service.wait((await service.submit(a_job(1, webhook_url=url))).id)
        Receiver.may_answer.set()
        Receiver.got.clear()
        async with place.running(ScriptedSupervisor("starting"), **options()) as service:
            await until(lambda: any(json.loads(body)["data"]["id"] == a_job(1).id for _, body in Receiver.got))

    asyncio.run(scenario())


def test_a_receiver_that_does_not_answer_holds_nobody_up(place, url):
    Receiver.may_answer.clear()

    async def scenario():
        async with place.running(**options()) as service:
            for i in range(6):
                await service.submit(a_job(i, webhook_url=url))
            for i in range(6):
                assert (await service.wait(a_job(i).id, 60)).status == "completed"
            Receiver.may_answer.set()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("http://127.0.0.1/hook", "which is not a public address"),
        ("http://[::ffff:169.254.169.254]/", "which is not a public address"),
        ("ftp://example.com/", "only http and https"),
        ("https://user:pw@example.com/", "carries a user name or password"),
        ("nonsense", "only http and https"),
    ],
)
def test_addresses_that_are_not_for_webhooks_are_refused_with_the_job(address, problem, place):
    async def scenario():
        async with place.running(webhook_secret=SECRET) as service:
            with pytest.raises(RequestError) as refused:
                await service.submit(a_job(1, webhook_url=address))
            assert refused.value.problem.startswith("webhook_url: ")
            assert problem in refused.value.problem
            assert "--webhook-allow-private" in refused.value.remedy
            assert await service.get(a_job(1).id) is None

    asyncio.run(scenario())


def test_a_name_that_leads_to_a_private_address_is_not_reached(place, url, until, quick_retries):
    async def scenario():
        async with place.running(webhook_secret=SECRET) as service:
            address = url.replace("127.0.0.1", "localhost")
            job = await service.wait((await service.submit(a_job(1, webhook_url=address))).id)
            await until(lambda: not service.statistics().waiting_webhooks)
            assert "which is not a public address" in (await service.get(job.id)).webhook.problem

    asyncio.run(scenario())
    assert Receiver.got == []


def test_without_a_secret_webhooks_are_refused(place):
    async def scenario():
        async with place.running() as service:
            with pytest.raises(RequestError) as refused:
                await service.submit(a_job(1, webhook_url="https://example.com/"))
            assert "no secret to sign webhooks with" in refused.value.problem
            assert "SGLANG_WEBHOOK_SECRET" in refused.value.remedy

    asyncio.run(scenario())


def test_the_secret_is_not_in_the_store(place, url, until):
    async def scenario():
        async with place.running(**options()) as service:
            await service.submit(a_job(1, webhook_url=url))
            await until(lambda: Receiver.got and not service.statistics().waiting_webhooks)

    asyncio.run(scenario())
    dump = "\n".join(sqlite3.connect(place.store / "jobs.sqlite3").iterdump())
    assert "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" not in dump


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("webhook_secret", "short", "expected a secret of at least 16 bytes, not one of 5"),
        ("webhook_secret", "whsec_!!!", "expected base64 after whsec_"),
        ("job_retention", "soon", "expected an age such as 90m, 36h or 7d, not 'soon'"),
        ("job_retention", "0d", "expected an age"),
        ("job_retention_bytes", "much", "expected a size such as 500MB or 20GiB, not 'much'"),
        ("max_attempts", 0, "must be >= 1"),
    ],
)
def test_wrong_settings_are_refused(name, value, problem, manager):
    from sglang_core import JobOptions, OptionGroup, hookimpl
    from sglang_core.testing import bare_manager, make_settings

    class Jobs:
        @hookimpl
        def sglang_register_options(self):
            return [OptionGroup(name="jobs", settings=JobOptions, commands=("serve",))]

    bare = bare_manager()
    bare.register(Jobs(), "jobs")
    with pytest.raises(ConfigError) as refused:
        make_settings(bare, "serve", **{name: value})

    assert problem in refused.value.problem
    if name == "webhook_secret":
        assert value not in refused.value.problem + refused.value.remedy
    settings = make_settings(bare, "serve", job_retention="36h", job_retention_bytes="1.5 GiB").of(JobOptions)
    assert (settings.retention_s, settings.retention_bytes) == (36 * 3600, 3 * 2**29)
