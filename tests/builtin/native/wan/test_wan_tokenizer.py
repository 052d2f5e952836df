import json
import subprocess
import sys

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5TokenizerFast

from sglang_core import ModelLoadError, SglangError
from sglang_plugins_builtin.native.wan.tokenizer import UMT5Tokenizer

PIECES = ["▁a", "▁red", "▁circle", "▁the", "▁m", "oves", "▁", "a", "b", "c", "e", "r", "s", "ö", "小", "猫", ".", ","]
TEXTS = [
    "",
    "a red circle moves.",
    "the the the the the the the the the the",
    "Zebra, 小猫 schön",
    "no <extra_id_0> tokens </s> here",
    "a  red\tcircle ",
]


@pytest.fixture
def folder(tmp_path):
    """Write a tokenizer of the kind T5 has: pieces with scores, words marked by a bar, an end of text."""
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [(piece, -1.0 - 0.1 * index) for index, piece in enumerate(PIECES)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    tokenizer.normalizer = normalizers.NFKC()
    bar = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), bar])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>", "<extra_id_0>"])
    tokenizer.post_processor = processors.TemplateProcessing(single=["$A", "</s>"], special_tokens=[("</s>", 1)])
    tokenizer.enable_padding(pad_id=0, pad_token="<pad>", length=20)
    tokenizer.enable_truncation(30)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "extra_ids": 1}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer", **names}))
    return tmp_path


@pytest.mark.parametrize("vanilla_class", [T5TokenizerFast, PreTrainedTokenizerFast])
@pytest.mark.parametrize("max_length", [5, 512])
@pytest.mark.parametrize("text", TEXTS)
def test_tokens_are_those_of_transformers(vanilla_class, max_length, text, folder):
    vanilla = vanilla_class.from_pretrained(folder)
    arguments = {"padding": "max_length", "max_length": max_length, "truncation": True, "add_special_tokens": True}
    encoded = vanilla(text, **arguments)
    expected = [token for token, mask in zip(encoded.input_ids, encoded.attention_mask, strict=True) if mask]

    assert UMT5Tokenizer.from_folder(folder)(text, max_length) == expected
    assert expected[-1] == 1  # the end of text, also where the text was cut


def test_reading_a_tokenizer_imports_no_transformers(folder):
    probe = (
        "import sys; from pathlib import Path\n"
        "from sglang_plugins_builtin.native.wan.tokenizer import UMT5Tokenizer\n"
        "print(UMT5Tokenizer.from_folder(Path(sys.argv[1]))('a red circle'))\n"
        "print({'torch', 'transformers', 'diffusers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", probe, str(folder)], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["[3, 4, 5, 1]", "set()"]


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(ModelLoadError) as caught:
        UMT5Tokenizer.from_folder(tmp_path)

    assert caught.value.problem == f"{tmp_path} has no tokenizer.json and no spiece.model"


def test_a_broken_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")

    with pytest.raises(ModelLoadError) as caught:
        UMT5Tokenizer.from_folder(tmp_path)

    assert caught.value.problem.startswith(f"{tmp_path / 'tokenizer.json'} is not a tokenizer: ")


def test_a_broken_sentencepiece_model_is_named(tmp_path):
    (tmp_path / "spiece.model").write_bytes(b"nothing")

    with pytest.raises(SglangError) as caught:  # which kind depends on the packages that are installed
        UMT5Tokenizer.from_folder(tmp_path)

    assert caught.value.problem.startswith(str(tmp_path / "spiece.model"))
