"""What a planned request says, and when samples of it are predicted together. Without torch: planning asks too."""

from typing import TypeVar

T = TypeVar("T")

#: The most tokens, by type of device, up to which several samples are predicted in one pass: larger ones fill the
#: machine alone, and then the mask that texts of different lengths need costs more than the pass saves.
MAX_JOINED_TOKENS = {"cpu": 1024}
MAX_JOINED_TOKENS_OF_OTHERS = 4096


def pays_to_join(num_tokens: int, device: str) -> bool:
    """Say whether samples of so many tokens are better predicted together than one after the other.

    :param device: ``cpu``, ``cuda:1`` and so on.
    """
    return num_tokens <= MAX_JOINED_TOKENS.get(device.partition(":")[0], MAX_JOINED_TOKENS_OF_OTHERS)


def planned(value: T | None) -> T:
    """Return a value of a request that planning has decided, from the defaults of ``describe_call`` if need be."""
    assert value is not None, "requests are planned before they run"
    return value
