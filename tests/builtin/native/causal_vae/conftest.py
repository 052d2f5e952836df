"""Each small autoencoder once."""

from collections.abc import Callable

import pytest
from tiny_causal_vaes import Pair, random_vanilla, with_weights_of


@pytest.fixture(scope="session")
def pairs() -> Callable[[str], Pair]:
    """Return prepared models by name; each is made once, on first use."""
    made: dict[str, Pair] = {}

    def get(name: str) -> Pair:
        if name not in made:
            vanilla = random_vanilla(name)
            ours = with_weights_of(vanilla, name)
            ours.prepare()
            made[name] = Pair(vanilla, ours)
        return made[name]

    return get
