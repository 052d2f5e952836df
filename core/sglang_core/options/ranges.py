"""In which range the numbers of a setting are, read from the validators of its field."""

from collections.abc import Iterator
from typing import Any

import attrs

from .fields import OptionField


def allowed_range(field: OptionField) -> str:
    """Return the range in words that follow "a number", such as `` from 0 to 100``; empty if there is none."""
    bounds = dict(_bounds(attrs.fields_dict(field.group)[field.name].validator))
    if ">=" in bounds and "<=" in bounds:
        return f" from {bounds['>=']} to {bounds['<=']}"
    words = {">=": "of at least", ">": "above", "<=": "of at most", "<": "below"}
    said = [f"{words[compare]} {bounds[compare]}" for compare in words if compare in bounds]
    return f" {' and '.join(said)}" if said else ""


def _bounds(validator: Any) -> Iterator[tuple[str, Any]]:
    """Yield the comparisons that a validator of attrs, or those that it is made of, makes with numbers.

    attrs has no public types for them, so they are known by what they hold.
    """
    if hasattr(validator, "compare_op") and hasattr(validator, "bound"):
        yield validator.compare_op, validator.bound
    for one in getattr(validator, "_validators", ()):  # and_()
        yield from _bounds(one)
    for name in ("validator", "member_validator"):  # optional(), deep_iterable()
        if getattr(validator, name, None) is not None:
            yield from _bounds(getattr(validator, name))
