import io
import struct

import pytest

from sglang_core import ModelLoadError, SglangError
from sglang_core.engine.channel import ChannelError, Message, MessageBuffer, read_message
from sglang_core.engine.wire import error_from_json, error_to_json, settings_from_json, settings_to_json
from sglang_core.options import Origin
from sglang_core.options.host import ModelOptions, SamplingOptions
from sglang_core.testing import make_settings


def test_messages_come_back_as_they_were_sent():
    messages = [
        Message(kind="run", values={"text": "ein Würfel, 円", "list": [1, None, 2.5]}),
        Message(kind="event", payload=bytes(range(256)) * 1000),
        Message(kind="alive"),
    ]
    stream = io.BytesIO(b"".join(message.encode() for message in messages))

    assert [read_message(stream) for _ in range(4)] == [*messages, None]


@pytest.mark.parametrize("size", [1, 3, 7, 8, 9, 50, 1000, 10**6])
def test_messages_are_taken_from_pieces_of_any_size(size):
    messages = [Message(kind="event", values={"n": n}, payload=bytes(n % 5)) for n in range(40)]
    sent = b"".join(message.encode() for message in messages)
    buffer, taken = MessageBuffer(), []
    for start in range(0, len(sent), size):
        buffer.add(sent[start : start + size])
        while (message := buffer.take()) is not None:
            taken.append(message)

    assert taken == messages


def test_a_buffer_refuses_what_is_no_message():
    buffer = MessageBuffer()
    buffer.add(b"GET / HTTP/1.1\r\n")

    with pytest.raises(ChannelError, match="is announced"):
        buffer.take()


@pytest.mark.parametrize("cut", [1, 7, 8, 20, -1])
def test_message_that_is_cut_off_is_the_end(cut):
    whole = Message(kind="event", values={"id": "a"}, payload=b"picture").encode()

    assert read_message(io.BytesIO(whole[:cut])) is None


@pytest.mark.parametrize(
    "body", [b"[1]", b"{}", b"nothing", b'{"kind": ', b"\xff\xfe", b"null"], ids=lambda body: repr(body)
)
def test_bytes_that_are_no_message_are_refused(body):
    with pytest.raises(ChannelError, match="no JSON object with a kind"):
        read_message(io.BytesIO(struct.pack(">II", len(body), 0) + body))


def test_absurd_lengths_are_refused_before_anything_is_read():
    with pytest.raises(ChannelError, match="is announced"):
        read_message(io.BytesIO(b"GET / HTTP/1.1\r\n"))


def test_settings_travel_with_secrets_and_origins(manager, tmp_path):
    sent = make_settings(
        manager, hf_token="hf_secret", seed=[1, 2], component_precisions={"vae": "fp32"}, diffusers_kwargs={"a": ["1"]}
    )

    settings = settings_from_json(manager, settings_to_json(sent))

    assert settings.of(ModelOptions).hf_token == "hf_secret"
    assert settings.of(SamplingOptions).seed == (1, 2)
    assert settings.values == sent.values
    assert settings.origin("seed") == Origin(kind="python", label="argument 'seed'")
    assert not settings.is_given("width")


def test_errors_keep_class_problem_and_remedy():
    class OwnError(ModelLoadError):
        """An error of a plugin."""

    error = error_from_json(error_to_json(OwnError("it is torn", "mend it")))

    assert (type(error), error.problem, error.remedy) == (ModelLoadError, "it is torn", "mend it")
    assert type(error_from_json({"class": "annotations", "problem": "a", "remedy": "b"})) is SglangError
