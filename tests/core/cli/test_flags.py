from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from attrs import frozen

from sglang_core import ConfigError, OptionGroup, option
from sglang_core.cli.flags import FlagGrammar
from sglang_core.options.namespace import OptionNamespace
from sglang_core.options.settings import merge


@frozen(kw_only=True)
class Every:
    """Every shape."""

    flag: bool = option(help="A switch.", default=False)
    on_by_default: bool = option(help="A switch.", default=True, negative_flag=True)
    maybe: bool | None = option(help="Perhaps a switch.", default=None)
    count: int = option(help="A count.", default=1)
    share: float | None = option(help="A share.", default=None)
    text: str = option(help="A text.", default="", aliases=("words",))
    file: Path | None = option(help="A file.", default=None)
    size: Literal["small", "large"] = option(help="A size.", default="small")
    many: tuple[int, ...] = option(help="Counts.", default=(), aliases=("several",))
    texts: tuple[str, ...] = option(help="Texts.", default=())
    parts: Mapping[str, int] = option(help="Counts of parts.", factory=dict)
    component_paths: Mapping[str, Path] = option(help="Folders of parts.", factory=dict, pattern="{key}_path")
    free: Mapping[str, Any] = option(help="Anything.", factory=dict)


@frozen(kw_only=True)
class Serving:
    """What another command uses."""

    port: int = option(help="A port.", default=1)


def parse(*words):
    """Return the settings and the words that are left."""
    namespace = OptionNamespace()
    namespace.add(OptionGroup(name="every", settings=Every), "test")
    namespace.add(OptionGroup(name="serving", settings=Serving, commands=("serve",), ignored_by=("generate",)), "other")
    grammar = FlagGrammar(
        namespace=namespace,
        groups=namespace.for_command("generate"),
        ignored=namespace.ignored_by("generate"),
        own_flags={"--config", "--help", "-h"},
    )
    parsed = grammar.parse(words)
    return merge(grammar.groups, [parsed.givens]).of(Every), parsed.rest


GOOD = [
    (["--flag"], "flag", True),
    (["--flag", "true"], "flag", True),
    (["--flag", "False"], "flag", False),
    (["--flag=false"], "flag", False),
    (["--flag=no"], "flag", False),
    (["--flag", "--count", "2"], "flag", True),
    (["--no-on-by-default"], "on_by_default", False),
    (["--no_on_by_default"], "on_by_default", False),
    (["--on-by-default=false"], "on_by_default", False),
    (["--maybe", "false"], "maybe", False),
    (["--count", "3"], "count", 3),
    (["--count=3"], "count", 3),
    (["--count", "-3"], "count", -3),
    (["--count", "1", "--count", "2"], "count", 2),
    (["--share", "-1.5e-2"], "share", -0.015),
    (["--text", "a b"], "text", "a b"),
    (["--text", "-x"], "text", "-x"),
    (["--text=--x"], "text", "--x"),
    (["--text="], "text", ""),
    (["--text", "a=b"], "text", "a=b"),
    (["--words", "a"], "text", "a"),
    (["--file", "a/b"], "file", Path("a/b")),
    (["--size", "LARGE"], "size", "large"),
    (["--many", "1", "-2", "3"], "many", (1, -2, 3)),
    (["--many", "1", "--many", "2"], "many", (1, 2)),
    (["--many", "1", "--several=2"], "many", (1, 2)),
    (["--texts", "a", "b c", "--flag"], "texts", ("a", "b c")),
    (["--texts", "a", "-h"], "texts", ("a",)),
    (["--texts", "a", "--config", "x"], "texts", ("a",)),
    (["--parts", "a=1,b=2"], "parts", {"a": 1, "b": 2}),
    (["--parts", "a=1", "b=2"], "parts", {"a": 1, "b": 2}),
    (["--parts", "a=1", "--parts", "b=2"], "parts", {"a": 1, "b": 2}),
    (["--parts", '{"a": 1}'], "parts", {"a": 1}),
    (["--parts", '{"a": 1}', "--parts", "b=2"], "parts", {"a": 1, "b": 2}),
    (["--parts.text-encoder", "1", "--parts.vae=2"], "parts", {"text_encoder": 1, "vae": 2}),
    (["--parts.a", "2", "--parts", "a=1,b=1"], "parts", {"a": 2, "b": 1}),
    (["--vae-path", "x"], "component_paths", {"vae": Path("x")}),
    (["--text_encoder_2-path=y"], "component_paths", {"text_encoder_2": Path("y")}),
    (["--component-paths.vae", "x"], "component_paths", {"vae": Path("x")}),
    (["--free", '{"a": "5"}'], "free", {"a": "5"}),
    (["--free.a-b", "5", "--free.c", "[1, 2]", "--free.d", "word"], "free", {"a_b": 5, "c": [1, 2], "d": "word"}),
    (["--on_by_default", "false"], "on_by_default", False),
    (["--port", "5", "--count", "2"], "count", 2),
]


@pytest.mark.parametrize(("words", "name", "value"), GOOD, ids=[" ".join(words) for words, _, _ in GOOD])
def test_flag_is_read(words, name, value):
    settings, _ = parse(*words)

    assert getattr(settings, name) == value


BAD = [
    (["--cuont", "1"], "unknown option --cuont", "use --count"),
    (["--qqqqqq"], "unknown option --qqqqqq", "see --help for the options"),
    (["--count"], "--count needs a value", "give --count a whole number"),
    (["--count", "--flag"], "--count needs a value", "give --count a whole number"),
    (["--many"], "--many needs a value", "give --many one or more values, each a whole number"),
    (["--parts.a"], "--parts.a needs a value", "give --parts.a"),
    (["--flag=perhaps"], "--flag: expected true or false, not 'perhaps'", "give flag true or false"),
    (["--no-on-by-default=true"], "--no-on-by-default takes no value", "write --no-on-by-default alone"),
    (["--no-flag"], "unknown option --no-flag", "use --flag"),
    (["--count", "x"], "--count: expected a whole number, not 'x'", "give count a whole number"),
    (["--count.a", "x"], "unknown option --count.a", "use --count"),
    (["--size", "larg"], "--size: expected one of small, large, not 'larg' (did you mean 'large'?)", "give size"),
    (["--parts", "a"], "--parts: expected name=value, not 'a'", "give parts entries name=value"),
    (["--parts.a", "x"], "--parts.a: expected a whole number, not 'x'", "give parts"),
    (["--path", "x"], "unknown option --path", "use --parts"),
]


@pytest.mark.parametrize(("words", "problem", "remedy"), BAD, ids=[" ".join(words) for words, _, _ in BAD])
def test_wrong_flag_is_named_with_a_remedy(words, problem, remedy):
    with pytest.raises(ConfigError) as refused:
        parse(*words)

    assert problem in refused.value.problem
    assert remedy in refused.value.remedy


def test_words_of_the_command_itself_are_left_alone():
    settings, rest = parse("--config", "a.yaml", "--count", "2", "extra", "--help", "--", "--count")

    assert settings.count == 2
    assert rest == ["--config", "a.yaml", "extra", "--help", "--", "--count"]
