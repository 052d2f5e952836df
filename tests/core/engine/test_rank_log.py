"""What the ranks of a real server write to stderr."""

import json
import logging

import pytest
from http_process import wait_for
from real_server import RealServer

from sglang_core.log_lines import JsonFormatter, add_log_fields, log_fields


@pytest.fixture
def lines(tmp_path):
    """Return the lines that a server and its ranks write about two jobs, and the ids of these."""

    def lines(*words):
        with RealServer(tmp_path, *words) as server, server.client() as client:
            ids = []
            for prompt in ("chatty", "fail"):
                body = {"prompt": prompt, "run_in_background": True}
                ids.append(client.post("/v1/images/generations", json=body).json()["id"])
                path = f"/v1/images/{ids[-1]}"
                wait_for(lambda path=path: client.get(path).json()["status"] in {"completed", "failed"}, "the job")
        return server.err.splitlines(), ids

    return lines


def test_json_log_has_every_line_of_the_ranks_with_rank_and_job(lines):
    said, (chatty, failing) = lines("--log-format", "json")

    by_hand = [line for line in said if not line.startswith("{")]
    records = [json.loads(line) for line in said if line.startswith("{")]
    assert by_hand == ["printed by hand"]
    assert all({"time", "level", "logger", "message"} <= set(record) for record in records)
    ranks = {record["logger"]: record for record in records if "rank" in record}
    assert {record["rank"] for record in ranks.values()} == {0}
    assert ranks["chatty_library"]["message"] == "said by a library"
    assert ranks["wilful_plugin"]["message"] == "in two\nlines"
    assert "a way of old" in ranks["py.warnings"]["message"]
    for name in ("chatty_library", "wilful_plugin", "py.warnings"):
        assert (ranks[name]["level"], ranks[name]["job_id"]) == ("warning", chatty)
    assert "ZeroDivisionError" in ranks["sglang_core"]["exception"]
    assert "doomed" in ranks["sglang_core"]["message"]
    failed = ranks["sglang_core.engine.item_runs"]
    assert (failed["message"], failed["job_id"]) == ("a run failed", failing)
    assert "ValueError: this fails\nin two lines" in failed["exception"]
    assert not any("rank" in record for record in records if record["logger"] == "sglang_core.server.access_log")


def test_text_log_of_the_ranks_stays_text(lines):
    said, _ = lines()

    assert "WARNING: a run failed" in said
    assert "said by a library" in said
    assert not any(line.startswith("{") for line in said)


def test_fields_are_those_of_the_innermost_body_and_around_it():
    def fields():
        record = logging.makeLogRecord({"name": "x", "msg": "y", "fields": {"own": True}})
        written = json.loads(JsonFormatter(rank=1).format(record))
        return {key: value for key, value in written.items() if key not in {"time", "level", "logger", "message"}}

    add_log_fields(nowhere=1)
    assert fields() == {"rank": 1, "own": True}
    with log_fields(job_id="a"):
        add_log_fields(trace_id="t")
        with log_fields(job_id="b"):
            add_log_fields(inner=1)
            assert fields() == {"rank": 1, "job_id": "b", "trace_id": "t", "inner": 1, "own": True}
        assert fields() == {"rank": 1, "job_id": "a", "trace_id": "t", "own": True}
    assert fields() == {"rank": 1, "own": True}
