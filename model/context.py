"""How much of a growing text the model sees: one rule, read with a cache or without.

A text of up to block_size tokens is seen whole. When it outgrows that, the newest three quarters
stay and are read anew at places 0, 1, ...: once every block_size/4 tokens, so the cost per token
stays bounded. A model with a window whose places are told by distance alone (pos rope or none)
slides instead: each token sees its window, and nothing is read twice. Of a prompt longer than
block_size the last block_size tokens count. Letters: B rows, N tokens of text, C = d_model.
"""

import torch
from torch.nn.utils.rnn import pad_sequence

from model.cache import KVCache


def keep(config) -> int:
    """Tokens that stay, the newest among them, when they would be block_size + 1."""
    return max(1, config.block_size * 3 // 4)


def reach(config) -> int:
    """Tokens before the newest that it can depend on: through a window, one more in each layer."""
    return config.n_layer * (config.window - 1) if config.slides else config.block_size - 1


class Cached:
    """Read one token a step, and keep the keys and values of those before it."""

    def __init__(self, model, text, lengths):
        """Read all but the last token of text (B,N); of row i, the last lengths[i] are text."""
        self.model, self.dtype = model, model.tok_emb.weight.dtype
        self.cache = KVCache(model.config, len(text), device=text.device, dtype=self.dtype)
        before = [min(n, model.config.block_size) - 1 for n in lengths]
        self.read(list(range(len(text))), text, before)

    def read(self, rows, text, lengths) -> None:
        """Let these rows hold the `lengths` tokens before the last one, read in one pass."""
        T = max(lengths)
        part = KVCache(self.model.config, len(rows), T, device=text.device, dtype=self.dtype)
        if T:  # shorter rows are padded at the right, where a causal model does not look
            before = [text[i, -1 - n : -1] for i, n in zip(rows, lengths, strict=True)]
            self.model.features(pad_sequence(before, batch_first=True), part)
        self.cache.paste(rows, part, lengths)

    def __call__(self, text):
        """Features (B,C) at the last place of text (B,N), which grows by one from call to call."""
        if rows := self.cache.full():
            if self.model.config.slides:
                self.cache.slide(rows)
            else:
                self.read(rows, text, [keep(self.model.config) - 1] * len(rows))
        return self.model.features(text[:, -1:], self.cache)[:, -1]


class Whole:
    """Read all that counts anew at each step: the plain road, to check the other against."""

    def __init__(self, model, text, lengths):
        """Of row i of text (B,N) the last lengths[i] are text."""
        self.model = model
        self.before = [min(n, model.config.block_size) - 1 for n in lengths]

    def __call__(self, text):
        """Features (B,C) at the last place of text (B,N), which grows by one from call to call."""
        c = self.model.config
        stay = reach(c) if c.slides else keep(c) - 1
        self.before = [n if n <= reach(c) else stay for n in self.before]
        rows = [row[-1 - n :] for row, n in zip(text, self.before, strict=True)]
        x = self.model.features(pad_sequence(rows, batch_first=True))
        x = x[torch.arange(len(rows)), self.before]
        self.before = [n + 1 for n in self.before]
        return x
