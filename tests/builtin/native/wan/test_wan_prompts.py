import subprocess
import sys

import pytest
from diffusers.pipelines.wan.pipeline_wan import prompt_clean

from sglang_plugins_builtin.native.wan.prompts import clean_prompt


@pytest.mark.parametrize(
    "text",
    ["", "  a   red\n\tcircle ", "cats &amp;amp; dogs &lt;3", "&amp;nbsp;x", "\u00a0non breaking\u3000", "schön 小猫"],
)
def test_a_prompt_is_cleaned_as_by_diffusers(text):
    assert clean_prompt(text) == prompt_clean(text)


def test_ftfy_repairs_a_prompt_where_it_is_installed(tmp_path):
    (tmp_path / "ftfy.py").write_text("def fix_text(text):\n    return text.replace('Ã¶', 'ö')\n")
    probe = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from sglang_plugins_builtin.native.wan.prompts import clean_prompt\n"
        "print(ascii(clean_prompt(' sch\\u00c3\\u00b6n  &amp;lt;')))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ascii("schön <")
