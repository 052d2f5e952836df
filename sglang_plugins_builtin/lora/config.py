"""The settings of adapters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen, validators

from sglang_core import OptionGroup, option


@frozen(kw_only=True)
class LoraOptions:
    """LoRA adapters."""

    lora_path: tuple[str, ...] = option(
        default=(), metavar="PATH ...", help="LoRA adapters: safetensors files, folders, or hub ids."
    )
    lora_nickname: tuple[str, ...] = option(
        default=(), metavar="NAME ...", help="Name of each adapter; default, default-2, ... if unset."
    )
    lora_scale: tuple[float, ...] = option(
        default=(),
        metavar="FLOAT ...",
        help="Strength of each adapter, or of all; 1 if unset.",
        validator=validators.deep_iterable([validators.ge(-100), validators.le(100)]),
    )
    lora_alpha: tuple[float, ...] = option(
        default=(),
        metavar="FLOAT ...",
        help="Alpha of each adapter, or of all, where its files have none; the rank if unset or 0.",
        validator=validators.deep_iterable(validators.ge(0)),
    )
    lora_weight_name: tuple[str, ...] = option(
        default=(), metavar="FILE ...", help="The file of each adapter, where its folder or repo has several."
    )
    lora: Mapping[str, Any] | None = option(
        default=None,
        metavar="JSON",
        help="Which of the adapters act, by nickname and strength; all of them, at --lora-scale, if unset.",
    )


@frozen(kw_only=True)
class LoraServerOptions:
    """LoRA adapters of clients."""

    lora_root: tuple[Path, ...] = option(
        default=(), metavar="FOLDER ...", help="Folders from which clients with the scope admin may load adapters."
    )
    lora_repo: tuple[str, ...] = option(
        default=(), metavar="ID ...", help="Hub repos from which they may load adapters, organisation/* too."
    )


LORA_GROUP = OptionGroup(
    name="lora",
    settings=LoraOptions,
    commands=("generate", "explain", "serve"),
    is_execution=True,
    is_per_request=True,
)
LORA_SERVER_GROUP = OptionGroup(
    name="lora_server", settings=LoraServerOptions, commands=("serve",), ignored_by=("generate", "explain")
)
