"""``sglang generate`` and ``sglang explain`` from the command line, with a backend whose steps cost nothing."""

import json

import pytest


@pytest.fixture
def words(tiny_model, tmp_path):
    return ["--model-path", tiny_model, "--output-path", tmp_path / "out"]


def test_result_is_one_json_object_on_stdout(sglang, words, tmp_path):
    done = sglang("generate", *words, "--prompt", "a", "--seed", 7, "--output-file-name", "x.png", "--json")

    answer = json.loads(done.out)
    assert done.code == 0
    assert answer["outputs"][0]["path"] == str(tmp_path / "out" / "x.png")
    assert answer["outputs"][0]["receipt"]["request"]["seed"] == 7
    assert sum(row["share"] for row in answer["timings"].values()) == pytest.approx(1.0, abs=0.01)


def test_file_is_made_again_from_its_receipt(sglang, words, tmp_path):
    sglang("generate", *words, "--prompt", "a", "--seed", 7, "--output-file-name", "x.png")

    done = sglang("generate", *words, "--from-file", tmp_path / "out" / "x.png", "--output-file-name", "y.png")

    assert done.code == 0
    assert (tmp_path / "out" / "y.png").read_bytes() == (tmp_path / "out" / "x.png").read_bytes()


def test_deadline_exits_124_and_leaves_no_file(sglang, words, tmp_path):
    done = sglang("generate", *words, "--prompt", "a", "--timeout-s", "1e-9", "--json")

    assert done.code == 124
    assert "(--timeout-s 1e-09)" in done.err
    assert json.loads(done.out)["error"]["type"] == "DeadlineExceededError"
    assert not (tmp_path / "out").exists()


def test_plan_is_explained_without_a_prompt_and_nothing_is_made(sglang, words, tmp_path):
    done = sglang("explain", *words)

    assert done.code == 0
    assert "backend     no_op  (automatic: it runs NoOpPipeline)" in done.out
    assert "'(no prompt given)'" in done.out
    assert not (tmp_path / "out").exists()


def test_settings_printed_by_generate_are_taken_by_generate(sglang, words, tmp_path):
    (tmp_path / "all.yaml").write_text(sglang("generate", *words, "--print-config", "--prompt", "a").out)

    done = sglang("generate", "--config", tmp_path / "all.yaml", "--json")

    assert done.code == 0, done.err
    assert len(json.loads(done.out)["outputs"]) == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("json: true\nwidth: wide\n", "expected a whole number, not 'wide'"),
        ("json: 'yes'\nwidht: 5\n", "unknown key 'widht'"),
        ("json: true\nbackend: none_such\n", "unknown execution backend 'none_such'"),
    ],
    ids=["value", "key", "plan"],
)
def test_error_is_a_json_object_where_the_file_asks_for_json(text, problem, sglang, words, tmp_path):
    (tmp_path / "run.yaml").write_text(text)

    done = sglang("generate", *words, "--prompt", "a", "--config", tmp_path / "run.yaml")

    error = json.loads(done.out)["error"]
    assert problem in error["problem"]
    assert error["exit_code"] == done.code == 2
    assert error["problem"] in done.err


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("json: false\nwidth: wide\n", []),
        ("json: true\nwidth: wide\n", ["--json", "false"]),
        ("json: true\nwidth: wide\n", ["--json=false"]),
        ("json: true\nwidth: [\n", []),
    ],
    ids=["file says no", "flag says no", "attached", "unreadable"],
)
def test_error_is_text_alone_where_nobody_can_have_asked_for_json(text, more, sglang, words, tmp_path):
    (tmp_path / "run.yaml").write_text(text)

    done = sglang("generate", *words, f"--config={tmp_path / 'run.yaml'}", *more)

    assert done.code == 2
    assert done.out == ""


def test_explain_takes_the_flags_of_generate_that_only_concern_its_display(sglang, words, tmp_path):
    (tmp_path / "run.yaml").write_text("quiet: true\nshow: true\njson: true\n")

    done = sglang("explain", *words, "--quiet", "--show", "--config", tmp_path / "run.yaml")

    assert done.code == 0, done.err
    assert "backend     no_op" in done.out
    assert "--quiet" not in sglang("explain", "--help").out
