"""The switch for the page."""

from attrs import frozen

from sglang_core import option


@frozen(kw_only=True)
class PlaygroundOptions:
    """Playground."""

    playground: bool = option(default=True, help="Serve a web page to try the model at /.", negative_flag=True)
