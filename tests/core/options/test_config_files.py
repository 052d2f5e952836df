"""Settings from files and from the environment, as ``generate`` reads them."""

import pytest

from sglang_core import (
    ConfigError,
    ExecutionOptions,
    ModelOptions,
    OffloadOptions,
    OutputOptions,
    SamplingOptions,
)
from sglang_core.cli.print_config import settings_as_yaml
from sglang_core.cli.settings_command import merge_settings
from sglang_core.options.settings import Given, Origin


@pytest.fixture
def read(manager, tmp_path):
    """Read a text as configuration file of ``generate``."""

    def read(text, name="config.yaml", flags=()):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return merge_settings(manager, "generate", list(flags), path)

    return read


BAD_FILES = {
    "unknown key": ("seed: 1\nwidht: 5\n", "config.yaml:2:1 (widht): unknown key 'widht'", "use 'width'"),
    "unknown key in JSON": (
        '{"seed": 1,\n  "widht": 5}',
        "config.json:2:3 (widht): unknown key 'widht'",
        "use 'width'",
    ),
    "nothing near": ("qqqqqq: 1\n", "config.yaml:1:1 (qqqqqq): unknown key", "see --print-config"),
    "wrong type": (
        "prompt: a\nwidth: wide\n",
        "config.yaml:2:1 (width): expected a whole number, not 'wide'",
        "give width a whole number",
    ),
    "wrong choice": ("device: cud\n", "(device): expected one of auto, cuda", "give device one of auto, cuda"),
    "number for text": ("revision: 1.10\n", "(revision): expected text, not 1.1: put it in quotes", "give revision"),
    "out of range": ("width: 0\n", "(width): 'width' must be >= 1: 0", "give width a whole number"),
    "seed too large": ("seed: 99999999999999999999\n", "(seed): ", "give seed"),
    "twice": ("seed: 1\nseed: 2\n", 'config.yaml:2:1: found duplicate key "seed"', "correct the YAML"),
    "twice in JSON": (
        '{"seed": 1, "seed": 2}',
        "config.json:1:13: the key 'seed' stands twice",
        "delete one of the two",
    ),
    "twice by alias": (
        "num_outputs: 1\nnum_outputs_per_prompt: 2\n",
        "config.yaml:2:1 (num_outputs_per_prompt): already set as 'num_outputs'",
        "delete one of the two",
    ),
    "list": ("- a\n", "config.yaml: the file is not a mapping", "write one 'key: value' a line"),
    "list in JSON": ("[1]", "config.json: the file is not a JSON object", 'write {"key": value, ...}'),
    "tab": ("output_path:\n\t- a\n", "config.yaml:2:1: ", "correct the YAML at this place"),
    "broken JSON": ('{"seed": }', "config.json:1:10: Expecting value", "correct the JSON at this place"),
    "deep JSON": ("[" * 100_000, "config.json: the JSON is nested too deeply", "write"),
    "two documents": ("a: 1\n---\nb: 2\n", "config.yaml:2:1: ", "correct the YAML"),
    "not text": (b"\xff\xfe\x00", "config.yaml: it is not text in UTF-8", "save the file as UTF-8"),
    "mapping for text": ("prompt:\n  a: b\n", "(prompt): expected text, not {'a': 'b'}", "give prompt"),
}


@pytest.mark.parametrize(("text", "problem", "remedy"), BAD_FILES.values(), ids=BAD_FILES)
def test_error_in_a_file_names_place_key_and_remedy(text, problem, remedy, read):
    name = "config.json" if "config.json" in problem else "config.yaml"

    with pytest.raises(ConfigError) as refused:
        read(text, name)

    assert problem in refused.value.problem
    assert remedy in refused.value.remedy


def test_unknown_file_format_is_refused(read):
    with pytest.raises(ConfigError, match=r"\.toml is not a known format") as refused:
        read("", "config.toml")

    assert refused.value.remedy == "name the file .yaml, .yml or .json"


def test_missing_file_and_folder_are_refused(manager, tmp_path):
    (tmp_path / "folder.yaml").mkdir()

    with pytest.raises(ConfigError, match="there is no such file"):
        merge_settings(manager, "generate", [], tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory"):
        merge_settings(manager, "generate", [], tmp_path / "folder.yaml")


@pytest.mark.parametrize("text", ["", "# nothing\n", "\n"])
def test_empty_file_sets_nothing(text, read):
    assert read(text).origins == {}


def test_byte_order_mark_is_skipped(read):
    assert read(b"\xef\xbb\xbfwidth: 64\n").of(SamplingOptions).width == 64
    assert read(b'\xef\xbb\xbf{"width": 64}', "config.json").of(SamplingOptions).width == 64


def test_dashes_aliases_dots_and_mappings_are_read(read):
    settings = read(
        "num-outputs: 2\n"
        "component-precisions:\n  text-encoder: fp32\n"
        "component_precisions.vae: fp16\n"
        "seed: [1, 2]\n"
        "prompt: one\n"
    )

    assert settings.of(SamplingOptions).num_outputs_per_prompt == 2
    assert settings.of(ExecutionOptions).component_precisions == {"text_encoder": "fp32", "vae": "fp16"}
    assert settings.of(SamplingOptions).seed == (1, 2)
    assert settings.of(SamplingOptions).prompt == ("one",)


def test_null_leaves_a_setting_unset(read, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")

    settings = read("width: null\nhf_token:\nseed: null\n")

    assert settings.of(ModelOptions).hf_token == "secret"
    assert settings.of(SamplingOptions).seed == (42,)
    assert not settings.is_given("width")


def test_bad_variable_is_named(read, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "perhaps")

    with pytest.raises(ConfigError) as refused:
        read("")

    assert refused.value.problem == "$HF_HUB_OFFLINE: expected true or false, not 'perhaps'"
    assert refused.value.remedy == "give offline true or false"


def test_empty_variable_counts_as_unset(read, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "")

    assert not read("").is_given("offline")


def test_flag_wins_over_file_over_variable_over_default(read, manager, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "from variable")
    field = manager.options.find("hf_token", manager.options.for_command("generate")).field
    flag = Given(field=field, value="from flag", origin=Origin(kind="flag", label="--hf-token"))

    def token(text, flags=()):
        return read(text, flags=flags).of(ModelOptions).hf_token

    assert token("hf_token: from file", [flag]) == "from flag"
    assert token("hf_token: from file") == "from file"
    assert token("") == "from variable"
    monkeypatch.delenv("HF_TOKEN")
    assert token("") is None


def test_printed_settings_read_back_are_the_same(read):
    text = (
        'prompt: ["\\x85 : # ° \\u2028 \\x7f", "🎨 \\ud83c\\udfa8"]\n'
        "seed: [1, 2]\nguidance_scale: 1e-05\nprecision: bf16\ntext_encoder_cpu_offload: false\n"
        "component_precisions: {vae: fp32}\ndiffusers_kwargs: {a: [1, null, '5'], b: {c: yes}}\nhf_token: canary-7f3a\n"
    )
    once = read(text)

    printed = settings_as_yaml(once)
    twice = read(printed)

    assert "canary-7f3a" not in printed
    assert "# hf_token: (hidden)" in printed
    for group in (SamplingOptions, ExecutionOptions, OffloadOptions, OutputOptions):
        assert twice.of(group) == once.of(group)
    assert settings_as_yaml(twice).replace("config.yaml", "") != ""


def test_printed_settings_name_each_origin(read, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    lines = settings_as_yaml(read("width: 64\n")).splitlines()

    assert f"width: 64  # {tmp_path}/config.yaml:1:1 (width)" in lines
    assert "offline: true  # $HF_HUB_OFFLINE" in lines
    assert "height: null  # default" in lines


SEED_EXAMPLE = """
model_path: FastVideo/FastHunyuan-diffusers
prompt: A beautiful woman in a red dress walking down a street
output_path: outputs/
num_frames: 45
height: 720
width: 1280
num_inference_steps: 6
seed: 1024
fps: 24
precision: bf16
vae_precision: fp16
"""


def test_settings_of_the_reference_are_read(read):
    settings = read(SEED_EXAMPLE)

    assert settings.of(SamplingOptions).num_frames == 45
    assert settings.of(ExecutionOptions).vae_precision == "fp16"


@pytest.mark.parametrize("key", ["num_gpus: 2", "sp_size: 2", "vae_sp: true"])
def test_setting_of_a_feature_that_is_not_there_is_named(key, read):
    name = key.partition(":")[0]

    with pytest.raises(ConfigError, match=f"unknown key '{name}'"):
        read(SEED_EXAMPLE + key)
