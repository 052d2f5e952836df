"""The tokenizer of Qwen2, by the ``tokenizers`` library alone: importing transformers takes seconds."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from sglang_core import ModelLoadError

#: How Qwen2 cuts a text before merging: contractions, words, single digits, other signs, line breaks, blanks.
_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)
_DOWNLOAD = "download the model again, with its tokenizer folder"


class Qwen2Tokenizer:
    """Texts to token ids, each text at its own length: nothing is padded. Special tokens inside a text are found."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.no_padding()  # a stored tokenizer may pad or cut every text
        tokenizer.no_truncation()
        self._tokenizer = tokenizer

    @classmethod
    def from_folder(cls, folder: Path) -> "Qwen2Tokenizer":
        """Read ``tokenizer.json``, or ``vocab.json`` and ``merges.txt`` with the added tokens beside them.

        :raises ModelLoadError: if the folder has neither, or a file cannot be used.
        """
        if (folder / "tokenizer.json").is_file():
            return cls(_from_json(folder / "tokenizer.json"))
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            return cls(_from_vocabulary(folder))
        raise ModelLoadError(f"{folder} has neither tokenizer.json nor vocab.json with merges.txt", _DOWNLOAD)

    def __call__(self, text: str, max_tokens: int | None = None) -> list[int]:
        """Return the ids of ``text``; a text that is too long loses its end."""
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids[:max_tokens]

    def id_of(self, token: str) -> int:
        """Return the id of a token such as ``<|image_pad|>``.

        :raises ModelLoadError: if the vocabulary does not have it.
        """
        found: int | None = self._tokenizer.token_to_id(token)
        if found is None:
            raise ModelLoadError(f"the tokenizer has no token {token!r}", _DOWNLOAD)
        return found


def _from_json(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for anything wrong in the file
        raise ModelLoadError(f"{path} is not a tokenizer: {error}", _DOWNLOAD) from error


def _from_vocabulary(folder: Path) -> Tokenizer:
    try:
        vocabulary, merges = BPE.read_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
        tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges))
    except Exception as error:  # as above
        problem = f"{folder / 'vocab.json'} and merges.txt are not a vocabulary: {error}"
        raise ModelLoadError(problem, _DOWNLOAD) from error
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    for token_id, token in _added_tokens(folder):
        tokenizer.add_special_tokens([token]) if token.special else tokenizer.add_tokens([token])
        if tokenizer.token_to_id(token.content) != token_id:  # ids are given in turn: one is missing before it
            raise ModelLoadError(
                f"{folder}: token {token.content!r} should have the id {token_id}, "
                f"but the vocabulary leaves {tokenizer.token_to_id(token.content)} for it",
                _DOWNLOAD,
            )
    return tokenizer


def _added_tokens(folder: Path) -> list[tuple[int, AddedToken]]:
    """Return the tokens beside the vocabulary, by ascending id."""
    described: Mapping[str, Mapping[str, Any]] = _read(folder / "tokenizer_config.json").get("added_tokens_decoder", {})
    if described:
        tokens = [(int(token_id), _added_token(token)) for token_id, token in described.items()]
    else:
        plain: Mapping[str, int] = _read(folder / "added_tokens.json")
        special = _special_names(_read(folder / "special_tokens_map.json"))
        tokens = [
            (int(token_id), AddedToken(name, special=name in special, normalized=False))
            for name, token_id in plain.items()
        ]
    return sorted(tokens, key=lambda pair: pair[0])


def _added_token(token: Mapping[str, Any]) -> AddedToken:
    flags = {name: bool(token.get(name)) for name in ("single_word", "lstrip", "rstrip", "normalized", "special")}
    return AddedToken(str(token["content"]), **flags)


def _special_names(special: Mapping[str, Any]) -> set[str]:
    values: list[Any] = []
    for value in special.values():
        values.extend(value if isinstance(value, Sequence) and not isinstance(value, str) else [value])
    return {str(value["content"] if isinstance(value, Mapping) else value) for value in values}


def _read(path: Path) -> dict[str, Any]:
    """Read a JSON object; a file that is not there is an empty one."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelLoadError(f"{path} is not valid JSON: {error}", _DOWNLOAD) from error
    return value if isinstance(value, dict) else {}
