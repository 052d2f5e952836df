"""Prompts as Wan's text encoder was given them: repaired, unescaped, with single spaces."""

import html
import importlib
import importlib.util
import re


def clean_prompt(text: str) -> str:
    """Return the prompt without broken characters, HTML entities (also doubled ones) and runs of white space.

    Broken characters are repaired by ftfy where it is installed, which is what diffusers does too.
    """
    if importlib.util.find_spec("ftfy") is not None:
        text = importlib.import_module("ftfy").fix_text(text)
    return re.sub(r"\s+", " ", html.unescape(html.unescape(text))).strip()
