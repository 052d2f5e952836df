"""Which exit code stands for which error. The documentation's table is made from this one."""

from ..errors import (
    ConfigError,
    DeadlineExceededError,
    ModelLoadError,
    ModelNotFoundError,
    OutOfDeviceMemoryError,
    OutputError,
    PluginError,
    RequestCancelledError,
    RequestError,
    SglangError,
    UnavailableError,
)

EXIT_INTERNAL = 1
EXIT_CODES: dict[type[SglangError], int] = {
    ConfigError: 2,
    RequestError: 2,
    PluginError: 3,
    ModelNotFoundError: 4,
    ModelLoadError: 4,
    UnavailableError: 5,
    OutOfDeviceMemoryError: 6,
    OutputError: 7,
    DeadlineExceededError: 124,
    RequestCancelledError: 130,
}


def exit_code(error: BaseException) -> int:
    """Return the exit code of an error; 1 for what is no error of ours."""
    for kind in type(error).__mro__:
        if kind in EXIT_CODES:
            return EXIT_CODES[kind]
    return EXIT_INTERNAL
