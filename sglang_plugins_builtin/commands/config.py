"""Settings of the commands themselves."""

from pathlib import Path

from attrs import frozen

from sglang_core import option


@frozen(kw_only=True)
class RepeatOptions:
    """Repeat."""

    from_file: Path | None = option(
        default=None,
        help="Make a picture or clip again from the receipt inside its file; other settings win over the receipt.",
    )
