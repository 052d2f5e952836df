"""The network. Tokens are tiles, (batch, tokens, channels); parameters have the names of the stored weights."""

import torch
from torch import nn

from sglang_core import Attention
from sglang_plugins_builtin.native.layers import Linear, sinusoidal_embedding

from .family import MosaicSizes

#: Channels of a tile's colour: red, green, blue in [-1, 1].
COLOURS = 3
#: A prompt is read as bytes of UTF-8.
_NUM_LETTERS = 256
#: Keys and values of the prompt for one layer, each (1, letters, heads, head_dim).
TextHeads = tuple[torch.Tensor, torch.Tensor]


class MosaicTransformer(nn.Module):
    """Predicts the clean colours of noisy tiles."""

    def __init__(self, sizes: MosaicSizes, self_attention: Attention, cross_attention: Attention) -> None:
        super().__init__()
        self.sizes = sizes
        # empty: the weights are assigned by name afterwards
        self.letters = nn.Parameter(torch.empty(_NUM_LETTERS, sizes.width), requires_grad=False)
        self.tiles_in = Linear(COLOURS, sizes.width)
        self.layers = nn.ModuleList(_Layer(sizes, self_attention, cross_attention) for _ in range(sizes.num_layers))
        self.tiles_out = Linear(sizes.width, COLOURS)

    def encode(self, prompt: str) -> torch.Tensor:
        """Return one token for each byte of the prompt and one for its end: (1, letters, width)."""
        numbers = torch.tensor([[*prompt.encode(), 0]], device=self.letters.device)
        return self.letters[numbers]

    def prepare_text(self, text: torch.Tensor) -> list[TextHeads]:
        """Return keys and values of the prompt for every layer: no step changes them."""
        return [layer.text_heads(text) for layer in self.layers if isinstance(layer, _Layer)]

    def positions(self, rows: int, columns: int) -> torch.Tensor:
        """Return what tells the tiles of a grid apart: (1, rows * columns, width)."""
        device, half = self.letters.device, self.sizes.width // 2
        row, column = (sinusoidal_embedding(torch.arange(size, device=device), half) for size in (rows, columns))
        grid = torch.cat((row[:, None].expand(-1, columns, -1), column[None].expand(rows, -1, -1)), dim=-1)
        return grid.flatten(0, 1)[None].to(self.letters.dtype)

    def times(self, noise: torch.Tensor) -> torch.Tensor:
        """Return what tells the steps apart, for noise levels (steps,) in [0, 1]: (steps, width)."""
        return sinusoidal_embedding(noise, self.sizes.width, scale=1000).to(self.letters.dtype)

    def forward(
        self, tiles: torch.Tensor, positions: torch.Tensor, time: torch.Tensor, text: list[TextHeads]
    ) -> torch.Tensor:
        """Return the predicted colours: (batch, tokens, 3) in [-1, 1] and float32, for ``tiles`` of that shape."""
        x = self.tiles_in(tiles.to(self.letters.dtype)) + positions + time
        for layer, heads in zip(self.layers, text, strict=True):
            x = layer(x, heads)
        return torch.tanh(self.tiles_out(x).float())


class _Layer(nn.Module):
    def __init__(self, sizes: MosaicSizes, self_attention: Attention, cross_attention: Attention) -> None:
        super().__init__()
        self._heads = (sizes.num_heads, sizes.head_dim)
        self._self_attention = self_attention
        self._cross_attention = cross_attention
        self.to_qkv = Linear(sizes.width, 3 * sizes.width)
        self.to_out = Linear(sizes.width, sizes.width)
        self.to_text_q = Linear(sizes.width, sizes.width)
        self.to_text_kv = Linear(sizes.width, 2 * sizes.width)
        self.to_text_out = Linear(sizes.width, sizes.width)

    def text_heads(self, text: torch.Tensor) -> TextHeads:
        key, value = self.to_text_kv(text).unflatten(-1, (2, *self._heads)).unbind(2)
        return key, value

    def forward(self, x: torch.Tensor, text: TextHeads) -> torch.Tensor:
        query, key, value = self.to_qkv(x).unflatten(-1, (3, *self._heads)).unbind(2)
        x = x + self.to_out(self._self_attention.attend(query, key, value).flatten(2))
        query = self.to_text_q(x).unflatten(-1, self._heads)
        result: torch.Tensor = x + self.to_text_out(self._cross_attention.attend(query, *text).flatten(2))
        return result
