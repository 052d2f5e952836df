"""The host's sentences as clients are told them: in the fields of the API instead of the flags of the command line."""

import re
from functools import cache

from attrs import fields

from .requests import ImageEditRequest, VideoRequest

#: Fields whose settings have other names.
FIELD_NAMES = {
    "num_outputs_per_prompt": "n",
    "image_path": "image",
    "mask_path": "mask",
    "output_file_name": "output_format",
}
_FLAG = re.compile(r"--([a-z][a-z0-9-]*)")


def said_to_clients(problem: str, remedy: str) -> str:
    """Return a problem and its remedy as one sentence; of flags that are no fields it says who can give them."""
    of_the_command = sorted({flag[0] for flag in _FLAG.finditer(remedy) if not _is_field(flag)})
    message = _FLAG.sub(_as_field, f"{problem}; try: {remedy}" if remedy else problem)
    for setting, name in FIELD_NAMES.items():
        message = re.sub(rf"\b{setting}\b", name, message)
    if of_the_command:
        verb = "is" if len(of_the_command) == 1 else "are"
        message += f" ({' and '.join(of_the_command)} {verb} given when the server is started)"
    return message


def _as_field(flag: re.Match[str]) -> str:
    return _name_of(flag) if _is_field(flag) else flag[0]


def _is_field(flag: re.Match[str]) -> bool:
    return _name_of(flag) in _known()


def _name_of(flag: re.Match[str]) -> str:
    name = flag[1].replace("-", "_")
    return FIELD_NAMES.get(name, name)


@cache
def _known() -> frozenset[str]:
    return frozenset(field.name for request in (ImageEditRequest, VideoRequest) for field in fields(request))
