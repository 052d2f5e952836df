"""Every error a user can meet, each with its remedy.

::

    SglangError
    ├── ConfigError              a setting: unknown, of the wrong type, out of range
    ├── RequestError             a request that this model or plan cannot serve
    │   └── ConflictError        a request that contradicts an earlier one
    ├── PluginError              a plugin that does not load, or two that disagree
    ├── ModelNotFoundError       a model reference that leads nowhere
    ├── ModelLoadError           a model folder or its weights that cannot be used
    ├── UnavailableError         a backend, encoder or device that cannot work on this machine
    ├── OutOfDeviceMemoryError   the device is too small for the plan
    ├── OutputError              a result that cannot be written
    ├── RequestCancelledError    the caller asked to stop
    └── DeadlineExceededError    the time given to the request is over
"""


class SglangError(Exception):
    """What went wrong, and what the user can do about it.

    :param problem: one sentence that names the thing, the value and the source.
    :param remedy: a command or a setting that helps.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)  # both in args: survives pickling between processes
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}\nTry: {self.remedy}"


class ConfigError(SglangError):
    """A setting that is unknown, has the wrong type or value, or does not apply here."""


class RequestError(SglangError):
    """A request that this model, backend or plan cannot serve."""


class ConflictError(RequestError):
    """A request that contradicts an earlier one, for example by using its idempotency key for something else."""


class PluginError(SglangError):
    """A plugin that does not load, breaks its contract, or claims a taken name."""


class ModelNotFoundError(SglangError):
    """A model reference that no resolver can follow."""


class ModelLoadError(SglangError):
    """A model folder, configuration or weight file that cannot be used."""


class UnavailableError(SglangError):
    """Something that is installed or named but cannot work on this machine."""


class OutOfDeviceMemoryError(SglangError):
    """The device does not hold what the plan asks of it."""


class OutputError(SglangError):
    """A result that cannot be encoded or written."""


class RequestCancelledError(SglangError):
    """The caller asked to stop; nothing half-made is left behind."""

    def __init__(self, problem: str = "cancelled", remedy: str = "run the command again") -> None:
        super().__init__(problem, remedy)


class DeadlineExceededError(SglangError):
    """The time given to the request is over."""
