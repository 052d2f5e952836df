"""The tokenizer and the prompts against transformers and the pipelines of diffusers."""

import json
from types import SimpleNamespace

import pytest
import torch

from sglang_core import ModelLoadError
from sglang_plugins_builtin.native.qwen_image.prompts import EDIT, EDIT_PLUS, TEXT_TO_IMAGE, pad_states, prompt_tokens
from sglang_plugins_builtin.native.qwen_image.tokenizer import Qwen2Tokenizer

TEXTS = [
    "",
    " ",
    "a red circle on the left of a blue square",
    "It's  DON'T we'Ll\tTabs   and trailing   ",
    "line one\nline two\r\n\n\n  line three\n",
    "numbers 1234567890 and 3.14159, v2-beta_x",
    "Grüße, naïve café — “quotes” … ½ ² ™",
    "Cafe\u0301 A\u030a \u1100\u1161",  # decomposed: NFC joins them
    "红色的圆形在左边\uff0c日本語テキスト 한국어 العربية हिन्दी",
    "🎨🖌️ 👩‍👩‍👧‍👦 🏳️‍🌈 flags 🇩🇪",
    "<|im_start|>user\nignore<|im_end|> <|image_pad|><|vision_start|> <|endoftext|>",
    "<|im_start|> not <|a special|> {} {braces} %s \\n",
    "\u200b\ufeffzero\u00a0width\u2028separators\x00\x07",
]


@pytest.fixture
def folder(embedded_model):
    return embedded_model / "tokenizer"


@pytest.fixture
def files_folder(folder, tmp_path):
    """The same tokenizer as vocabulary, merges and added tokens: what the published model has."""
    stored = json.loads((folder / "tokenizer.json").read_text())
    (tmp_path / "vocab.json").write_text(json.dumps(stored["model"]["vocab"]))
    merges = ["#version: 0.2", *(" ".join(pair) for pair in stored["model"]["merges"])]
    (tmp_path / "merges.txt").write_text("\n".join(merges) + "\n")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"] = {
        str(token["id"]): {name: value for name, value in token.items() if name != "id"}
        for token in stored["added_tokens"]
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.fixture
def vanilla(folder):
    from transformers import Qwen2Tokenizer as Vanilla

    return Vanilla.from_pretrained(folder)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_ids_equal_those_of_transformers(folder, vanilla, text) -> None:
    assert Qwen2Tokenizer.from_folder(folder)(text) == vanilla(text).input_ids


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_vocabulary_and_merges_give_the_ids_of_the_single_file(folder, files_folder, text) -> None:
    assert Qwen2Tokenizer.from_folder(files_folder)(text) == Qwen2Tokenizer.from_folder(folder)(text)


def test_vocabulary_and_merges_give_the_ids_of_transformers(files_folder) -> None:
    from transformers import Qwen2Tokenizer as Vanilla

    vanilla, ours = Vanilla.from_pretrained(files_folder), Qwen2Tokenizer.from_folder(files_folder)

    assert [ours(text) for text in TEXTS] == vanilla(TEXTS).input_ids


def test_older_folder_has_its_added_tokens_in_a_file_of_their_own(folder, files_folder) -> None:
    decoder = json.loads((files_folder / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    (files_folder / "tokenizer_config.json").unlink()
    added = {token["content"]: int(token_id) for token_id, token in decoder.items()}
    (files_folder / "added_tokens.json").write_text(json.dumps(added))
    (files_folder / "special_tokens_map.json").write_text(
        json.dumps({"eos_token": {"content": "<|endoftext|>"}, "additional_special_tokens": ["<|im_start|>"]})
    )

    found, expected = Qwen2Tokenizer.from_folder(files_folder), Qwen2Tokenizer.from_folder(folder)

    assert [found(text) for text in TEXTS] == [expected(text) for text in TEXTS]


def test_token_is_found_by_its_name(folder) -> None:
    tokenizer = Qwen2Tokenizer.from_folder(folder)

    assert tokenizer.id_of("<|image_pad|>") == 750
    with pytest.raises(ModelLoadError, match=r"the tokenizer has no token '<\|nothing\|>'"):
        tokenizer.id_of("<|nothing|>")


def test_folder_without_a_tokenizer_is_refused(tmp_path) -> None:
    with pytest.raises(
        ModelLoadError, match=r"has neither tokenizer\.json nor vocab\.json with merges\.txt"
    ) as refused:
        Qwen2Tokenizer.from_folder(tmp_path)

    assert refused.value.remedy == "download the model again, with its tokenizer folder"


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"])
def test_broken_file_is_named(files_folder, name) -> None:
    (files_folder / name).write_text('{"broken')

    with pytest.raises(ModelLoadError, match=name.replace(".", r"\.")):
        Qwen2Tokenizer.from_folder(files_folder)


def test_added_token_whose_id_the_vocabulary_does_not_reach_is_refused(files_folder) -> None:
    config = json.loads((files_folder / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"]["900"] = {"content": "<|late|>", "special": True}
    (files_folder / "tokenizer_config.json").write_text(json.dumps(config))

    with pytest.raises(ModelLoadError, match=r"token '<\|late\|>' should have the id 900"):
        Qwen2Tokenizer.from_folder(files_folder)


def test_templates_and_cuts_are_those_of_the_pipelines() -> None:
    from diffusers import QwenImageEditPipeline, QwenImageEditPlusPipeline, QwenImagePipeline

    nothing = {"scheduler": None, "vae": None, "text_encoder": None, "tokenizer": None, "transformer": None}
    picture = "Picture {}: <|vision_start|><|image_pad|><|vision_end|>"
    plain = QwenImagePipeline(**nothing)
    edit = QwenImageEditPipeline(**nothing, processor=None)
    plus = QwenImageEditPlusPipeline(**nothing, processor=None)

    assert TEXT_TO_IMAGE.text("a {cat}") == plain.prompt_template_encode.format("a {cat}")
    assert EDIT.text("a {cat}", 1) == edit.prompt_template_encode.format("a {cat}")
    assert EDIT_PLUS.text("a {cat}", 2) == plus.prompt_template_encode.format(
        picture.format(1) + picture.format(2) + "a {cat}"
    )
    assert [each.num_dropped_tokens for each in (TEXT_TO_IMAGE, EDIT, EDIT_PLUS)] == [
        each.prompt_template_encode_start_idx for each in (plain, edit, plus)
    ]


@pytest.mark.parametrize("prompt", ["a red circle", "", "word " * 2000], ids=["short", "empty", "too long"])
@pytest.mark.parametrize("max_prompt_tokens", [7, 512, 1024])
def test_prompt_keeps_the_tokens_that_the_pipeline_keeps(folder, vanilla, prompt, max_prompt_tokens) -> None:
    from diffusers import QwenImagePipeline

    kept = []

    def encode(input_ids, attention_mask, output_hidden_states):
        kept.append(input_ids)
        return SimpleNamespace(hidden_states=[input_ids[..., None].float()])

    encode.dtype = torch.float32
    pipeline = SimpleNamespace(
        tokenizer=vanilla, text_encoder=encode, tokenizer_max_length=1024, prompt_template_encode_start_idx=34
    )
    pipeline.prompt_template_encode = TEXT_TO_IMAGE.text("{}")
    for name in ("_extract_masked_hidden", "_get_qwen_prompt_embeds"):
        setattr(pipeline, name, getattr(QwenImagePipeline, name).__get__(pipeline))
    embeds, _ = QwenImagePipeline.encode_prompt(
        pipeline, prompt, device=torch.device("cpu"), max_sequence_length=max_prompt_tokens
    )

    ids = prompt_tokens(Qwen2Tokenizer.from_folder(folder), prompt, max_prompt_tokens)

    assert ids[TEXT_TO_IMAGE.num_dropped_tokens :] == embeds[0, :, 0].int().tolist()


def test_states_of_several_prompts_become_one_batch_with_a_mask() -> None:
    states, mask = pad_states([torch.ones(2, 3), torch.ones(4, 3)])

    assert states.sum(dim=-1).tolist() == [[3, 3, 0, 0], [3, 3, 3, 3]]
    assert mask is not None
    assert mask.tolist() == [[True, True, False, False], [True] * 4]


def test_states_of_one_length_need_no_mask() -> None:
    states, mask = pad_states([torch.ones(2, 3), torch.zeros(2, 3)])

    assert states.shape == (2, 2, 3)
    assert mask is None
