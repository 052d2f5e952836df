"""The grammar of the attention settings: files, entries and dotted flags."""

import json

import pytest

from sglang_core import ConfigError
from sglang_core.cli.flags import FlagGrammar
from sglang_core.options.host import AttentionOptions
from sglang_core.options.settings import merge
from sglang_core.options.sources import given_in_environment
from sglang_core.testing import bare_manager


@pytest.fixture
def read():
    """Read words (and variables) as ``sglang generate`` does."""

    def make(*words, **variables):
        namespace = bare_manager(host_options=True).options
        groups = namespace.for_command("generate")
        parsed = FlagGrammar(namespace=namespace, groups=groups, ignored=(), own_flags=()).parse(words)
        return merge(groups, [parsed.givens, given_in_environment(groups, variables)]).of(AttentionOptions)

    return make


def test_the_variable_chooses_and_the_flag_wins(read):
    variable = {"SGLANG_DIFFUSION_ATTENTION_BACKEND": "fa"}

    assert read(**variable).attention_backend == "fa"
    assert read("--attention-backend", "torch_sdpa", **variable).attention_backend == "torch_sdpa"


@pytest.mark.parametrize(
    "words",
    [
        ["--component-attention-backends", "transformer=fa,text-encoder=torch_sdpa"],
        ["--component-attention-backend", "transformer=fa", "text_encoder=torch_sdpa"],
        ["--component_attention_backends", '{"transformer": "fa", "text_encoder": "torch_sdpa"}'],
        ["--component-attention-backends.transformer", "fa", "--component-attention-backends.text-encoder=torch_sdpa"],
        ["--component-attention-backends", "transformer=x,text_encoder=torch_sdpa",
         "--component-attention-backends.transformer", "fa"],
    ],
    ids=["entries", "alias, words", "JSON", "dotted", "dotted wins"],
)  # fmt: skip
def test_components_are_written_in_many_ways(read, words):
    assert read(*words).component_attention_backends == {"transformer": "fa", "text_encoder": "torch_sdpa"}


def test_a_role_is_part_of_the_name(read):
    assert read("--component-attention-backends.transformer.self", "fa").component_attention_backends == {
        "transformer.self": "fa"
    }


@pytest.mark.parametrize(
    "words",
    [
        ["--attention-backend-config", "sparsity=0.5,blocks=-1,is_fast=true,mode=auto"],
        ["--attention-backend-config", '{"sparsity": 0.5, "blocks": -1, "is_fast": true, "mode": "auto"}'],
        [
            "--attention-backend-config.sparsity",
            "0.5",
            "--attention-backend-config",
            "blocks=-1,is_fast=true,mode=auto",
        ],
    ],
    ids=["entries", "JSON", "dotted"],
)
def test_parameters_are_written_in_many_ways(read, words):
    wanted = {"sparsity": 0.5, "blocks": -1, "is_fast": True, "mode": "auto"}

    assert read(*words).attention_backend_config == wanted


@pytest.mark.parametrize(("name", "text"), [("c.json", json.dumps({"a": 1})), ("c.YAML", "a: 1\n"), ("c.yml", "a: 1")])
def test_parameters_come_from_a_file(read, tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")

    assert read("--attention-backend-config", str(tmp_path / name)).attention_backend_config == {"a": 1}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("missing.yaml", "--attention-backend-config missing.yaml: there is no such file"),
        ("{", "--attention-backend-config: expected a JSON object: "),
        ("fast", "--attention-backend-config: expected name=value, not 'fast'"),
    ],
)
def test_what_is_neither_is_refused(read, value, problem):
    with pytest.raises(ConfigError) as refused:
        read("--attention-backend-config", value)

    assert refused.value.problem.startswith(problem)
    assert refused.value.remedy
