"""Random command lines and configuration files: an answer or one sentence with a remedy, never a traceback.

The short form runs with every test; ``tox -e hostile`` runs the long one.
"""

import contextlib
import io
import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sglang_core import PluginManager, create_plugin_manager
from sglang_core.cli import app as cli_app
from sglang_core.cli import main
from sglang_core.testing import no_op_plugin, write_tiny_pipeline

NUM_EXAMPLES = 3000 if os.environ.get("SGLANG_TEST_LONG") == "1" else 60
EXPECTED_CODES = {0, 2, 3, 4, 5, 7}
often = settings(
    max_examples=NUM_EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

FLAGS = [
    field.flag
    for group in create_plugin_manager(only_built_ins=True).options
    if "explain" in group.commands
    for field in group.fields
]
words = st.one_of(
    st.sampled_from(FLAGS),
    st.sampled_from(FLAGS).map(lambda flag: flag.replace("-", "_").replace("__", "--", 1)),
    st.sampled_from(
        ["true", "false", "0", "-1", "1e9", "nan", "null", "{}", "[]", "a=b", "fp16", "auto", "--", "-", ""]
    ),
    st.text(max_size=20),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def manager() -> PluginManager:
    manager = create_plugin_manager(only_built_ins=True)
    manager.register(no_op_plugin(order=-1), "no_op")
    return manager


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_pipeline(tmp_path_factory.mktemp("model") / "tiny")


def explain(manager: PluginManager, monkeypatch: pytest.MonkeyPatch, command_line: list[str]) -> tuple[int, str]:
    monkeypatch.setattr(cli_app, "create_plugin_manager", lambda **_: manager)
    error = io.StringIO()
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(error),
        pytest.raises(SystemExit) as stopped,
    ):
        main(["explain", *command_line])
    return int(stopped.value.code or 0), error.getvalue()


def assert_is_answer_or_sentence(code: int, error: str) -> None:
    assert code in EXPECTED_CODES, error
    assert "Traceback" not in error
    assert "this should not happen" not in error
    assert (code == 0) or "\nTry: " in error, error


@often
@given(command_line=st.lists(words, max_size=6))
def test_random_command_line(
    command_line: list[str], manager: PluginManager, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, error = explain(manager, monkeypatch, ["--model-path", str(model), *command_line])

    assert_is_answer_or_sentence(code, error)


@often
@given(entries=st.dictionaries(st.sampled_from([flag[2:] for flag in FLAGS]) | st.text(max_size=8), values, max_size=4))
def test_random_configuration_file(
    entries: dict[str, object], manager: PluginManager, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "settings.json"
        path.write_text(json.dumps({"model_path": str(model), **entries}), encoding="utf-8")

        code, error = explain(manager, monkeypatch, ["--config", str(path)])

    assert_is_answer_or_sentence(code, error)


@often
@given(text=st.text(alphabet=st.characters(codec="utf-8"), max_size=60), suffix=st.sampled_from([".yaml", ".json"]))
def test_random_file(
    text: str, suffix: str, manager: PluginManager, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"settings{suffix}"
        path.write_text(text, encoding="utf-8")

        code, error = explain(manager, monkeypatch, ["--model-path", str(model), "--config", str(path)])

    assert_is_answer_or_sentence(code, error)
