"""What a model computes while it reads a text, as plain arrays. Knows no pictures.

Letters: T tokens, L blocks of H heads, C = d_model, V = vocab_size, k tokens of each prediction.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model import TinyGPT
from model.inside import walk
from tok import Tokenizer
from utils.writing.text import start_ids

Array = np.ndarray[Any, Any]
KEPT = 10  # tokens of each prediction, the likeliest
MARKS = {" ": "·", "\n": "↵", "\r": "␍", "\t": "⇥"}


@dataclass(frozen=True)
class Look:
    """A text inside a model. Row t of a prediction is about token t + 1; depth 0 is before block 1.

    `names` has the label of each id that occurs, read or predicted.
    """

    ids: Array  # (T,)
    attention: Array  # (L,H,T,T), how much a position (row) takes from each (column); rows sum to 1
    likely: Array  # (L+1,T,k), ids by the logit lens, the likeliest first
    p: Array  # (L+1,T,k), their probabilities
    loss: Array  # (T-1,), nats of token t + 1
    names: dict[int, str]

    @property
    def labels(self) -> list[str]:
        """The tokens that were read, as people can see them."""
        return [self.names[i] for i in self.ids.tolist()]


def label(tokenizer: Tokenizer, i: int) -> str:
    r"""A token with marks for blanks: " the" -> "·the", "\n" -> "↵", half a character -> "‹c3›"."""
    if i >= tokenizer.vocab_size:  # a model may have more ids than its tokenizer
        return f"‹{i}›"
    text = tokenizer.decode([i])
    if "\ufffd" in text:
        return f"‹{tokenizer.decode_bytes([i]).hex(' ')}›"
    return "".join(MARKS.get(c, c) for c in text)


def labels(tokenizer: Tokenizer, ids: Iterable[int]) -> dict[int, str]:
    """The label of each id."""
    return {i: label(tokenizer, i) for i in set(ids)}


def logit_lens(model: TinyGPT, stream: Tensor) -> Tensor:
    """head(norm(x)): what the model would predict if it ended here, (...,C) -> (...,V).

    Of the last block these are the model's logits (nostalgebraist 2020, "interpreting GPT: the
    logit lens").
    """
    return model.head(model.norm(stream))


def check_length(T: int, model: TinyGPT, most: int = 0) -> None:
    """Raise ValueError for more tokens than the model reads, or than `most`."""
    c = model.config
    if c.block_size < T and not c.slides:
        raise ValueError(f"{T} tokens exceed block_size={c.block_size}; shorten the text")
    if 0 < most < T:
        raise ValueError(f"{T} tokens, and a picture has room for {most}; shorten the text")


@torch.no_grad()
def look(
    model: TinyGPT, tokenizer: Tokenizer, text: str, *, end: int | None = None, most: int = 0
) -> Look:
    """Read a text (after `end`, if the model learnt from documents) and keep what is inside.

    Raises ValueError for a text that is too long or that the tokenizer cannot encode.
    """
    ids = start_ids(tokenizer, text, end)
    check_length(len(ids), model, most)
    model.eval()
    idx = torch.tensor(ids, device=model.tok_emb.weight.device)
    stream, attention = walk(model, idx)
    likely, p = [], []
    for x in stream:  # depth by depth: (L+1,T,V) of a large vocabulary is much
        logits = logit_lens(model, x).float()
        top = logits.softmax(-1).topk(min(KEPT, logits.size(-1)))
        likely.append(top.indices)
        p.append(top.values)
    loss = F.cross_entropy(logits[:-1], idx[1:], reduction="none")
    chosen = torch.stack(likely)
    names = labels(tokenizer, [*ids, *chosen.flatten().tolist()])
    tensors = {"ids": idx, "attention": attention.float(), "likely": chosen, "p": torch.stack(p)}
    arrays = {name: t.cpu().numpy() for name, t in tensors.items()}
    return Look(**arrays, loss=loss.cpu().numpy(), names=names)
