from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from attrs import frozen

from sglang_core import option
from sglang_core.options.convert import convert, to_plain
from sglang_core.options.fields import option_fields

Size = Literal["small", "large"]


@frozen(kw_only=True)
class Every:
    """Every shape a setting can have."""

    flag: bool = option(help="A switch.", default=False)
    count: int = option(help="A count.", default=1)
    share: float = option(help="A share.", default=0.5)
    text: str = option(help="A text.", default="")
    folder: Path = option(help="A folder.", default=Path())
    size: Size = option(help="A size.", default="small")
    maybe: int | None = option(help="Perhaps a count.", default=None)
    many: tuple[int, ...] = option(help="Counts.", default=())
    sizes: tuple[Size, ...] = option(help="Sizes.", default=())
    parts: Mapping[str, Size] = option(help="A size for each part.", factory=dict)
    free: Mapping[str, Any] = option(help="Anything.", factory=dict)


FIELDS = {field.name: field for field in option_fields(Every)}

GOOD = [
    ("flag", "true", True),
    ("flag", "No", False),
    ("flag", "1", True),
    ("flag", False, False),
    ("count", "12", 12),
    ("count", "-3", -3),
    ("count", 12.0, 12),
    ("share", "1e-3", 0.001),
    ("share", 2, 2.0),
    ("text", "42", "42"),
    ("text", "", ""),
    ("folder", "a/b", Path("a/b")),
    ("folder", Path("a"), Path("a")),
    ("size", "LARGE", "large"),
    ("maybe", None, None),
    ("maybe", "3", 3),
    ("many", "3", (3,)),
    ("many", 3, (3,)),
    ("many", [1, "2"], (1, 2)),
    ("sizes", ["small", "large"], ("small", "large")),
    ("parts", {"text-encoder": "small"}, {"text_encoder": "small"}),
    ("parts", "vae=small, transformer=large", {"vae": "small", "transformer": "large"}),
    ("parts", ["vae=small", '{"transformer": "large"}'], {"vae": "small", "transformer": "large"}),
    ("free", '{"a": [1, null], "b": {"c": "5"}}', {"a": [1, None], "b": {"c": "5"}}),
    ("free", {"a-b": "5"}, {"a-b": "5"}),
]


@pytest.mark.parametrize(("name", "written", "value"), GOOD)
def test_value_is_read_in_its_type(name, written, value):
    found = convert(FIELDS[name], written)

    assert found == value
    assert type(found) is type(value)


BAD = [
    ("flag", "maybe", "expected true or false, not 'maybe'"),
    ("flag", "", "expected true or false, not ''"),
    ("flag", 1, "expected true or false, not 1"),
    ("count", "1.5", "expected a whole number, not '1.5'"),
    ("count", 1.5, "expected a whole number, not 1.5"),
    ("count", True, "expected a whole number, not true"),
    ("count", [1], "expected a whole number, not [1]"),
    ("share", "nan", "expected a number, not 'nan'"),
    ("share", "inf", "expected a number, not 'inf'"),
    ("text", 1.10, "expected text, not 1.1: put it in quotes"),
    ("text", True, "expected text, not true: put it in quotes"),
    ("text", ["a"], "expected text, not ['a']"),
    ("folder", 5, "expected a path, not 5: put it in quotes"),
    ("size", "larg", "expected one of small, large, not 'larg' (did you mean 'large'?)"),
    ("size", 5, "expected one of small, large, not 5"),
    ("many", ["1", "x"], "expected a whole number, not 'x'"),
    ("many", {"a": 1}, "expected a whole number, not {'a': 1}"),
    ("sizes", [None], "expected one of small, large, not null"),
    ("parts", "vae", "expected name=value, not 'vae'"),
    ("parts", "=small", "expected name=value, not '=small'"),
    ("parts", 5, "expected entries name=value, each value one of small, large, not 5"),
    ("parts", {"vae": "huge"}, "expected one of small, large, not 'huge'"),
    ("free", "{a}", "expected a JSON object: "),
    ("free", "[1]", "expected a JSON object, not [1]"),
    ("free", 5, "expected a JSON object, not 5"),
    ("text", ["x" * 500], "..."),
]


@pytest.mark.parametrize(("name", "written", "message"), BAD)
def test_wrong_value_says_what_was_expected(name, written, message):
    with pytest.raises(ValueError, match=r"^expected") as refused:
        convert(FIELDS[name], written)

    assert message in str(refused.value)
    assert len(str(refused.value)) < 200


def test_plain_values_are_json_values():
    assert to_plain({"a": (Path("x"), 1)}) == {"a": ["x", 1]}


def test_setting_of_an_unknown_type_is_refused():
    @frozen(kw_only=True)
    class Odd:
        when: complex = option(help="Odd.", default=0j)

    with pytest.raises(TypeError, match="settings cannot have the type <class 'complex'>"):
        option_fields(Odd)


def test_setting_without_default_is_refused():
    @frozen(kw_only=True)
    class Odd:
        needed: int = option(help="Odd.")

    with pytest.raises(TypeError, match=r"Odd.needed has no default"):
        option_fields(Odd)
