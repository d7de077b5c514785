"""How much of a growing text the model reads: one rule, with a cache or without.

A text of up to block_size tokens is read whole. When it outgrows that, the newest three quarters
stay and are read anew at positions 0, 1, ...: once every block_size/4 tokens, so the cost per token
stays bounded. A model with a window and relative positions (pos rope or none) slides instead: each
token attends to its window, and nothing is read twice. Of a prompt longer than block_size the last
block_size tokens count. Letters: B rows, N tokens of text, C = d_model.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from model.config import GPTConfig
from model.generation.cache import KVCache
from model.generation.caches import new_cache
from model.generation.step import TokenStep, can_step
from model.gpt import TinyGPT

DecodeStep = Callable[[Tensor, KVCache], Tensor]  # idx (B,1) -> hidden states (B,1,C)


def kept_tokens(config: GPTConfig) -> int:
    """Tokens that stay, the newest among them, when they would be block_size + 1."""
    return max(1, config.block_size * 3 // 4)


def receptive_field(config: GPTConfig) -> int:
    """Tokens before the newest that it can depend on: through a window, more in each layer."""
    if not config.slides:
        return config.block_size - 1
    return config.n_layer * (config.window - 1) + max(0, config.emb_conv - 1)


class CachedDecoder:
    """Read one token a step, and keep the keys and values of those before it."""

    def __init__(
        self,
        model: TinyGPT,
        text: Tensor,
        lengths: list[int],
        step: DecodeStep | None = None,
        kept: KVCache | None = None,
    ) -> None:
        """Read all but the last token of text (B,N); of row i, the last lengths[i] are text.

        What `kept`, a cache of one row, holds of the text's beginning is not read again.
        """
        self.model = model
        own = TokenStep(model) if can_step(model) else model.hidden_states
        self.step = step or own
        before = [min(n, model.config.block_size) - 1 for n in lengths]
        self.cache = kept or new_cache(model, len(text))
        if len(text) == 1:
            self.read_on(text[0, -1 - before[0] : -1])
        else:
            self.read(list(range(len(text))), text, before)

    def read(self, rows: list[int], text: Tensor, lengths: list[int]) -> None:
        """Let these rows hold the `lengths` tokens before the last one, read in one pass."""
        T = max(lengths)
        part = new_cache(self.model, len(rows), T)
        if T:  # shorter rows are padded at the right, where a causal model does not look
            before = [text[i, -1 - n : -1] for i, n in zip(rows, lengths, strict=True)]
            self.model.hidden_states(pad_sequence(before, batch_first=True), part)
        self.cache.paste(rows, part, lengths)

    def read_on(self, ids: Tensor) -> None:
        """Let the only row hold ids (N,): read what follows the part of them that it holds."""
        n = self.cache.keep(ids)
        if n < len(ids):
            self.model.hidden_states(ids[None, n:], self.cache)

    def __call__(self, text: Tensor) -> Tensor:
        """Hidden states (B,C) of the last token of text (B,N), which grows by one a call."""
        rows = self.cache.full()
        if rows and self.model.config.slides:
            self.cache.slide(rows)
        elif rows:
            self.read(rows, text, [kept_tokens(self.model.config) - 1] * len(rows))
        return self.step(text[:, -1:], self.cache)[:, -1]
