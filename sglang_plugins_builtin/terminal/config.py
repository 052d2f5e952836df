"""The settings of what is shown while a command runs."""

from attrs import frozen

from sglang_core import option


@frozen(kw_only=True)
class TerminalOptions:
    """Terminal."""

    quiet: bool = option(default=False, help="Show no progress and no summary; warnings and errors still appear.")
    json: bool = option(default=False, help="Print one JSON object on stdout; progress becomes log lines on stderr.")
    show: bool = option(default=False, help="Show the result in the terminal (kitty, iTerm2 or sixel graphics).")
