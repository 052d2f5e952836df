"""Settings of the engine behind ``sglang serve``."""

from attrs import frozen, validators

from .fields import option


@frozen(kw_only=True)
class EngineOptions:
    """Engine of the server."""

    launcher: str | None = option(
        default=None, metavar="NAME", help="How the processes that hold the model are started; automatic if unset."
    )
    batching_max_size: int = option(
        default=1, validator=validators.ge(1), help="Most compatible requests that are run together."
    )
    batching_delay_ms: float = option(
        default=0.0, validator=validators.ge(0), help="Longest time a request waits for others to be run with, in ms."
    )
    interleaving: bool = option(
        default=True,
        negative_flag=True,
        help="Run a small request in the middle of a large one, between two steps, where the pipeline can.",
    )
    max_queue: int = option(
        default=100, validator=validators.ge(1), help="Most requests that wait; further ones are answered with 429."
    )
    max_queue_per_key: int | None = option(
        default=None,
        validator=validators.optional(validators.ge(1)),
        help="Most requests of one API key that wait; no limit of its own if unset.",
    )
    step_timeout_s: float = option(
        default=1800.0,
        validator=validators.gt(0),
        help="Restart the model's processes when a run shows no sign of life for so many seconds.",
    )
    load_timeout_s: float = option(
        default=1800.0,
        validator=validators.gt(0),
        help="Restart the model's processes when loading makes no progress for so many seconds.",
    )
    max_restarts: int = option(
        default=5,
        validator=validators.ge(0),
        help="How often in a row the model's processes may end without having run a request, before it gives up.",
    )
    restart_delay_s: float = option(
        default=1.0,
        validator=validators.ge(0),
        help="Seconds before the second restart in a row; doubled for each further one, at most 60.",
    )
