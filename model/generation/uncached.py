"""Generation without a cache: the plain way, which the other one is checked against."""

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from model.generation.context import kept_tokens, receptive_field
from model.gpt import TinyGPT


class UncachedDecoder:
    """Read all that counts anew at each step. B rows, N tokens of text, C = d_model."""

    def __init__(self, model: TinyGPT, lengths: list[int]) -> None:
        """Of row i of the text (B,N) the last lengths[i] are text."""
        self.model = model
        self.before = [min(n, model.config.block_size) - 1 for n in lengths]

    def __call__(self, text: Tensor) -> Tensor:
        """Hidden states (B,C) of the last token of text (B,N), which grows by one a call."""
        c = self.model.config
        reach = receptive_field(c)
        stay = reach if c.slides else kept_tokens(c) - 1
        self.before = [n if n <= reach else stay for n in self.before]
        rows = [row[-1 - n :] for row, n in zip(text, self.before, strict=True)]
        x = self.model.hidden_states(pad_sequence(rows, batch_first=True))
        x = x[torch.arange(len(rows)), self.before]
        self.before = [n + 1 for n in self.before]
        return x
