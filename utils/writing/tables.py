"""How a model writes, as tables: a grid over settings, and each token beside its alternatives."""

import itertools
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from model import TinyGPT
from tok import Tokenizer
from utils.writing.text import Written, generate_ids, write_batch

WIDE = 64  # columns of text beside the figures
HEAD = f"{'temp':>5}{'top_k':>7}{'distinct-1':>12}{'distinct-2':>12}{'log p':>8}   text"


def distinct(text: str, n: int) -> float:
    """Share of different word n-grams among all of a text (Li et al. 2016); 1 if it has none.

    "a b a b" -> distinct-1 2/4, distinct-2 2/3: low figures are a text that repeats itself.
    """
    words = text.split()
    grams = list(zip(*(words[i:] for i in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else 1.0


def grid_row(temp: float, top_k: int, written: Written, prompt: str = "") -> str:
    """A prompt and its continuation with its figures before it, wrapped in a column of its own."""
    figures = f"{temp:>5g}{top_k or 'all':>7}{distinct(written.text, 1):>12.2f}"
    figures += f"{distinct(written.text, 2):>12.2f}{written.mean_logprob:>8.2f}   "
    text = (prompt + written.text).strip()
    lines = (textwrap.wrap(line, WIDE) or [""] for line in text.splitlines())
    return figures + ("\n" + " " * len(figures)).join(itertools.chain.from_iterable(lines))


def grid(
    model: TinyGPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    steps: int,
    temps: Sequence[float],
    top_ks: Sequence[int],
    **settings: Any,
) -> Iterator[str]:
    """Lines of a table: a continuation of each prompt at every pair of temperature and top-k.

    All pairs draw with the same seed; prompts are shown where they differ. log p is the mean
    log-probability that the model itself, at temperature 1, gives the tokens drawn; distinct-n
    counts words.
    """
    yield HEAD
    several = len(set(prompts)) > 1
    for temp, top_k in itertools.product(temps, top_ks):
        sampling = {**settings, "temperature": temp, "top_k": top_k or None}
        made = write_batch(model, tokenizer, prompts, steps, **sampling)
        for prompt, written in zip(prompts, made, strict=True):
            yield "\n" + grid_row(temp, top_k, written, prompt if several else "")


def shown(tokenizer: Tokenizer, i: int) -> str:
    r"""A token as people can read it: ' the', '\n', or the bytes of a cut character: b'\xf0'."""
    text = tokenizer.decode([i])
    return repr(tokenizer.decode_bytes([i]) if "\ufffd" in text else text)


class Alternatives:
    """A callback of `generate` that keeps the last step: the drawn id's p, and the n likeliest."""

    def __init__(self, n: int):
        self.n, self.p, self.top = n, 0.0, list[tuple[int, float]]()

    def __call__(self, ids: Tensor, logits: Tensor) -> None:
        """Note a step of one row: ids (1,), logits (1,V)."""
        p = logits[0].float().softmax(-1)
        top = p.topk(min(self.n, len(p)))
        self.p = float(p[ids[0]])
        self.top = list(zip(top.indices.tolist(), top.values.tolist(), strict=True))


def alternatives(
    model: TinyGPT,
    tokenizer: Tokenizer,
    prompt: str,
    steps: int,
    *,
    end: int | None = None,
    stops: Sequence[str] = (),
    n: int = 5,
    **sampling: Any,
) -> Iterator[str]:
    """Lines, one a token: the chosen one and the n most likely, with the model's probabilities.

    The probabilities are the model's own, before temperature and cuts.
    """
    last, made = Alternatives(n), list[int]()
    yield f"{'token':>14}{'p':>7}   the {n} most likely"
    for ids in generate_ids(model, tokenizer, [prompt], steps, end=end, callback=last, **sampling):
        likely = "  ".join(f"{shown(tokenizer, i)} {p:.2f}" for i, p in last.top)
        yield f"{shown(tokenizer, int(ids)):>14}{last.p:>7.2f}   {likely}"
        made.append(int(ids))
        if any(stop in tokenizer.decode(made) for stop in stops):
            return
