"""The merged settings as YAML that ``--config`` reads back, each value with its origin."""

import json

from ..options.convert import to_plain
from ..options.settings import Settings

_SECRET = "(hidden)"


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
            lines.append(f"# {field.name}: {_SECRET}  # {origin}")
            continue
        lines.append(f"{field.name}: {json.dumps(to_plain(value), ensure_ascii=False)}  # {origin}")
    return "\n".join(lines) + "\n"
