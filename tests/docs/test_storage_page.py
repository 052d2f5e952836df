"""What the page on storage says is what the code does."""

import re

import pytest
from page_blocks import ROOT

from sglang_core import StorageOptions
from sglang_core.options.fields import option_fields
from sglang_plugins_builtin.s3 import S3Options
from sglang_plugins_builtin.s3.config import MAX_EXPIRY_S
from sglang_plugins_builtin.s3.keys import _FIELDS
from sglang_plugins_builtin.s3.storage import PART_BYTES
from sglang_plugins_builtin.s3.transport import _BUSY, _FIRST_PAUSE_S, _LONGEST_PAUSE_S

PAGE = (ROOT / "docs" / "storage.md").read_text(encoding="utf-8")
FIELDS = [*option_fields(StorageOptions), *option_fields(S3Options)]
ROWS = "\n".join(line for line in PAGE.splitlines() if line.startswith("| `SGLANG_"))


def test_every_variable_has_its_row_and_every_row_its_variable():
    assert re.findall(r"SGLANG_[A-Z0-9_]+", re.sub(r"(?m)^\| (.*?) \|.*$", r"\1", ROWS)) == [
        field.details.env for field in FIELDS
    ]


@pytest.mark.parametrize("name", ["s3_url_expiry_s", "s3_max_attempts", "s3_timeout_s", "s3_key_template"])
def test_default_is_on_the_page(name):
    (field,) = [field for field in FIELDS if field.name == name]
    (row,) = [row for row in ROWS.splitlines() if f"`{field.details.env}`" in row]

    default = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
    assert default in row


def test_choices_are_on_the_page():
    for field in FIELDS:
        assert all(f"`{choice}`" in ROWS for choice in field.shape.choices)


def test_fields_of_templates_are_on_the_page():
    assert set(re.findall(r"\{([a-z]+)\}", PAGE)) == set(_FIELDS)


def test_numbers_are_those_of_the_code():
    assert f"at most {MAX_EXPIRY_S}" in PAGE
    assert f"(status {', '.join(str(status) for status in sorted(_BUSY))})" in PAGE
    assert f"over {PART_BYTES // 2**20} MiB" in PAGE
    assert (_FIRST_PAUSE_S, _LONGEST_PAUSE_S) == (0.5, 20.0)
    assert "half a second, then up to 20 seconds" in PAGE
