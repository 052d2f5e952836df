"""The tokenizer of UMT5, from ``tokenizer.json`` by the ``tokenizers`` library alone: transformers takes seconds."""

from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer

from sglang_core import ModelLoadError, UnavailableError

#: Returns the token ids of a text, at most so many, the end-of-text token included.
Encode = Callable[[str, int], list[int]]


class UMT5Tokenizer:
    """Texts to token ids, each text at its own length: nothing is padded."""

    def __init__(self, encode: Encode) -> None:
        self._encode = encode

    @classmethod
    def from_folder(cls, folder: Path) -> "UMT5Tokenizer":
        """Read ``tokenizer.json``; a folder that has ``spiece.model`` alone is converted by transformers.

        :raises ModelLoadError: if the folder has neither, or a file cannot be used.
        :raises UnavailableError: if a package for ``spiece.model`` is missing.
        """
        if (folder / "tokenizer.json").is_file():
            return cls(_from_json(folder / "tokenizer.json"))
        if (folder / "spiece.model").is_file():
            return cls(_from_sentencepiece(folder))
        raise ModelLoadError(
            f"{folder} has no tokenizer.json and no spiece.model", "download the model again, with its tokenizer folder"
        )

    def __call__(self, text: str, max_length: int = 512) -> list[int]:
        """Return the ids of a text with the end-of-text token.

        A text that is too long loses its end: ``max_length`` counts the end-of-text token too.
        """
        return self._encode(text, max_length)


def _from_json(path: Path) -> Encode:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for anything wrong in the file
        raise ModelLoadError(f"{path} is not a tokenizer: {error}", "download the tokenizer again") from error
    tokenizer.no_padding()  # as stored, it may pad every text

    def encode(text: str, max_length: int) -> list[int]:
        tokenizer.enable_truncation(max_length)
        ids: list[int] = tokenizer.encode(text).ids
        return ids

    return encode


def _from_sentencepiece(folder: Path) -> Encode:
    # Rare: every published Wan folder has tokenizer.json. Converting the file is what transformers is good at.
    try:
        from transformers import T5TokenizerFast

        tokenizer = T5TokenizerFast.from_pretrained(folder)
    except ImportError as error:
        raise UnavailableError(
            f"{folder / 'spiece.model'} needs a package that is missing: {error}",
            "pip install transformers sentencepiece protobuf",
        ) from error
    except Exception as error:  # foreign code on a foreign file
        problem = " ".join(str(error).split())
        raise ModelLoadError(
            f"{folder / 'spiece.model'} is not a tokenizer: {problem}", "download the tokenizer again"
        ) from error

    def encode(text: str, max_length: int) -> list[int]:
        ids: list[int] = tokenizer(text, max_length=max_length, truncation=True).input_ids
        return ids

    return encode
