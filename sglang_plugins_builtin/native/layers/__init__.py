"""The torch layers that the model families share.

Every module here is created with empty parameters, since weights are assigned by name afterwards: initialising them
would take time and pull in what torch needs for meta devices. Tokens are (batch, tokens, channels), heads are (batch,
tokens, heads, head_dim).
"""

from .embeddings import TimestepEmbedding, sinusoidal_embedding
from .feed_forward import FeedForward
from .linear import Activation, Linear, LinearKernel, PackedLinear, activate, pack_linears
from .modulation import Modulation, gated_add, modulated_norm
from .norms import LayerNorm, RMSNorm
from .rotary import RotaryTable, normed_rotary, rotate_halves, rotate_pairs

__all__ = [
    "Activation",
    "FeedForward",
    "LayerNorm",
    "Linear",
    "LinearKernel",
    "Modulation",
    "PackedLinear",
    "RMSNorm",
    "RotaryTable",
    "TimestepEmbedding",
    "activate",
    "gated_add",
    "modulated_norm",
    "normed_rotary",
    "pack_linears",
    "rotate_halves",
    "rotate_pairs",
    "sinusoidal_embedding",
]
