"""The merged settings as YAML that ``--config`` reads back, each value with its origin."""

import json
import re
from typing import Any

from ..options.convert import to_plain
from ..options.settings import Settings

_HIDDEN = "(hidden)"
#: What JSON writes as it is and YAML does not read as it is.
_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def settings_as_yaml(settings: Settings) -> str:
    """Return one ``key: value  # origin`` line for each setting, a heading for each group.

    Values are JSON, which is YAML too; secrets are replaced by a comment and left unset.
    """
    lines: list[str] = []
    title = None
    for group, field, value in settings.fields():
        if group.title != title:
            title = group.title
            lines.append(f"# {title}")
        origin = settings.origin(field.name).label
        if field.details.is_secret and value is not None:
            lines.append(f"# {field.name}: {_HIDDEN}  # {origin}")
            continue
        lines.append(f"{field.name}: {_yaml_value(value)}  # {origin}")
    return "\n".join(lines) + "\n"


def _yaml_value(value: Any) -> str:
    text = json.dumps(to_plain(value), ensure_ascii=False)
    return _NOT_IN_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
