import pytest
from attrs import frozen, validators

from sglang_core import ConfigError, OptionGroup, option
from sglang_core.options.fields import option_fields
from sglang_core.options.ranges import allowed_range
from sglang_core.options.server import ServerOptions
from sglang_core.options.settings import Given, Origin, merge

ge, gt, le, lt = validators.ge, validators.gt, validators.le, validators.lt


@frozen(kw_only=True)
class Options:
    port: int = option(default=1, help="-", validator=[ge(0), le(65_535)])
    least: int = option(default=1, help="-", validator=ge(1))
    positive: float = option(default=1.0, help="-", validator=gt(0))
    share: float | None = option(default=None, help="-", validator=validators.optional([gt(0), lt(1)]))
    many: tuple[int, ...] = option(default=(), help="-", validator=validators.deep_iterable([ge(-5), le(5)]))
    free: int = option(default=1, help="-")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("port", " from 0 to 65535"),
        ("least", " of at least 1"),
        ("positive", " above 0"),
        ("share", " above 0 and below 1"),
        ("many", " from -5 to 5"),
        ("free", ""),
    ],
)
def test_range_is_that_of_the_validators(name, said):
    fields = {field.name: field for field in option_fields(Options)}

    assert allowed_range(fields[name]) == said


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("port", "99999", "give port a whole number from 0 to 65535"),
        ("port", "-1", "give port a whole number from 0 to 65535"),
        ("port", "abc", "give port a whole number from 0 to 65535"),
        ("max_steps", "0", "give max_steps a whole number of at least 1"),
        ("rate_limit", "5", "give rate_limit a rate such as 60/minute or 2/second"),
        ("public_url", "images", "give public_url an address such as https://images.example.com"),
        ("api_key", ("a b",), "give api_key keys of one word each, of printable ASCII characters"),
        ("cors_origin", ("x",), "give cors_origin an origin such as https://app.example.com, or *"),
    ],
)
def test_value_out_of_range_is_answered_with_the_right_ones(name, value, remedy):
    group = OptionGroup(name="server", settings=ServerOptions, commands=("serve",))
    field = next(field for field in group.fields if field.name == name)

    with pytest.raises(ConfigError) as refused:
        merge([group], [[Given(field=field, value=value, origin=Origin(kind="flag", label=field.flag))]])

    assert refused.value.remedy == remedy
