"""Groups of settings, as plugins register them."""

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from .fields import OptionField, option_fields


@frozen(kw_only=True)
class OptionGroup:
    """An attrs class of settings and the commands that take it.

    ``commands`` show and use the settings. ``ignored_by`` are commands that accept them without using them, because
    one configuration file or command line serves several commands.
    """

    name: str
    settings: type[Any]
    commands: tuple[str, ...] = ("generate", "explain")
    ignored_by: tuple[str, ...] = ()
    #: Settings that change how a pipeline is loaded or run: a backend that does not honour one refuses it.
    is_execution: bool = False
    #: Settings that may differ from request to request of a loaded model, because a transform follows them.
    is_per_request: bool = False
    fields: tuple[OptionField, ...] = field(init=False, repr=False)
    #: The fields by name.
    by_name: Mapping[str, OptionField] = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "fields", option_fields(self.settings))
        object.__setattr__(self, "by_name", {each.name: each for each in self.fields})

    @property
    def title(self) -> str:
        """Return the first line of the class's docstring, the heading in ``--help`` and the docs."""
        return (self.settings.__doc__ or self.name).strip().splitlines()[0].rstrip(".")
