"""Filling [MASK]s with a BERT: which tokens it expects there, how probable, the text filled.

Letters: T positions, M of them masked.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.masking import Vocabulary, piece, vocabulary
from model import TinyBERT
from tok import Tokenizer
from utils.device import pick_device
from utils.training.masked import read_only
from utils.training.models import load_model
from utils.writing.terminal import bold, note

Guess = tuple[int, float]  # a token and its probability


def masked_ids(tokenizer: Tokenizer, text: str, v: Vocabulary, T: int) -> list[int]:
    """[CLS] text [SEP] with its [MASK]s, as the model reads it. ValueError for none, or too many.

    A token that begins with its space, as BPE's do, replaces the space before its [MASK], too.
    """
    if "[MASK]" not in text:
        raise ValueError(f"no [MASK] in {text!r}; write it where a token is to be guessed")
    if v.spaced.any() and not v.spaced[v.ordinary].all():
        text = re.sub(r" +\[MASK\]", "[MASK]", text)
    ids = tokenizer.encode(text, allowed_special={"[MASK]"})
    if len(ids) + 2 > T:
        raise ValueError(f"the text has {len(ids)} tokens, but the model reads {T - 2}; shorten it")
    return [v.cls, *ids, v.sep]


@torch.no_grad()
def guesses(model: TinyBERT, v: Vocabulary, ids: Sequence[int], top: int) -> list[list[Guess]]:
    """The `top` likeliest tokens for each [MASK] of a text (T,), all special tokens left out.

    The masks are guessed one by one, each as if the others stayed: [[(id, p), ...], ...].
    """
    x = torch.tensor([ids], device=model.tok_emb.weight.device)
    logits = model.head(model.hidden_states(x)[0, x[0] == v.mask]).float()  # (M,V)
    logits[:, v.special.nonzero()[0]] = -torch.inf
    best = logits[:, : len(v.special)].softmax(-1).topk(min(top, len(v.ordinary)))
    rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [list(zip(tokens, p, strict=True)) for tokens, p in rows]


def filled(model: TinyBERT, v: Vocabulary, ids: Sequence[int]) -> list[int]:
    """The text with its masks filled: the surest guess first, then again, as it changes others."""
    ids = list(ids)
    while v.mask in ids:
        best = [row[0] for row in guesses(model, v, ids, 1)]
        at = [i for i, token in enumerate(ids) if token == v.mask]
        sure = max(range(len(at)), key=lambda i: best[i][1])
        ids[at[sure]] = best[sure][0]
    return ids


def read_masked(model: TinyBERT, batch: Sequence[Tensor]) -> tuple[list[int], list[int]]:
    """What a model guesses in the first row of (x, y, token types, padding), and what is true.

    The guess is -1 where nothing was masked; the truth ends where the padding begins.
    """
    x, y, types, padding = (t[:1].to(model.tok_emb.weight.device) for t in batch)
    with read_only(model):
        best = model.head(model.hidden_states(x, types, padding)).argmax(-1)
    real = padding[0]
    guess, truth = best.where(y >= 0, -1), y.where(y >= 0, x)
    return guess[0, real].tolist(), truth[0, real].tolist()


def beside(tokenizer: Tokenizer, guess: Sequence[int], truth: Sequence[int]) -> str:
    """A text with guesses in brackets, a wrong one beside the truth: "The[ fox] ran[ home| up]"."""
    special, parts = set(tokenizer.special_tokens.values()), []
    for found, token in zip(guess, truth, strict=True):
        text = "\n" if token in special else piece(tokenizer, token)
        if found == token:
            text = f"[{text}]"
        elif found >= 0:
            text = f"[{piece(tokenizer, found)}|{text}]"
        parts.append(text)
    return "".join(parts).strip()


def show_fills(path: Path, which: str, texts: Sequence[str], top: int, device: str) -> None:
    """Print, for each [MASK] of each text, what a run's BERT expects there; then the text filled.

    Raises ValueError for a run without [MASK], or a text without one, before anything is printed.
    """
    loaded, tokenizer, checkpoint = load_model(path, which, kind="bert")
    model: Any = loaded.to(pick_device(device).device).eval()
    v = vocabulary(tokenizer)
    rows = [masked_ids(tokenizer, text, v, model.config.block_size) for text in texts]
    note(f"{path}/{which}.pt, step {checkpoint['step']}, {model.n_params():,} parameters")
    for text, ids in zip(texts, rows, strict=True):
        print(bold(text))
        found = guesses(model, v, ids, top)
        for number, row in enumerate(found, 1):
            if len(found) > 1:
                print(f"[MASK] {number}")
            for token, p in row:
                shown = tokenizer.decode([token])
                print(f"{p:7.1%}  {shown.strip() or repr(shown)}")
        print(tokenizer.decode(filled(model, v, ids)[1:-1]))
