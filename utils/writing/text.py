"""From prompts to text: the start of a document, the model's continuation, decoded as it comes.

`end` is the id of <|endoftext|> if the model learnt from documents (`data.store.end_id`), else
None: a text then starts after it, and ends before it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import tee
from operator import itemgetter
from typing import Any

from torch import Tensor

from model import TinyGPT, generate
from tok import Tokenizer
from utils.writing.stops import check_stops, up_to


def start_ids(tokenizer: Tokenizer, prompt: str, end: int | None) -> list[int]:
    """Ids to go on from: <|endoftext|> first if the model learnt documents; never empty."""
    start = [] if end is None else [end]
    if ids := start + tokenizer.encode(prompt):
        return ids
    try:
        return tokenizer.encode("\n") or tokenizer.encode(".")  # WordPiece has no line breaks
    except ValueError:  # a text of one line, by characters: any token will do
        return [0]


def generate_ids(
    model: TinyGPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    steps: int,
    *,
    end: int | None,
    **sampling: Any,
) -> Iterator[Tensor]:
    """`generate` from texts to the end of a document, (B,) a step, only ids the tokenizer knows."""
    rows = [start_ids(tokenizer, prompt, end) for prompt in prompts]
    known = min(tokenizer.vocab_size, model.config.vocab_size)
    return generate(model, rows, steps, stop=end, vocab_size=known, **sampling)


def split_rows(drawn: Iterable[Tensor], B: int) -> list[Iterator[int]]:
    """What `generate` yields, (B,) a step, as B rows of ids: made once, to be read in any order."""
    copies = tee((ids.tolist() for ids in drawn), B)
    return [map(itemgetter(i), copy) for i, copy in enumerate(copies)]


def until(ids: Iterable[int], end: int | None) -> Iterator[int]:
    """The ids before `end`."""
    for i in ids:
        if i == end:
            return
        yield i


def stream_batch(
    model: TinyGPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    steps: int,
    *,
    end: int | None = None,
    stops: Sequence[str] = (),
    **sampling: Any,
) -> list[Iterator[str]]:
    """Continue several prompts at once, each piece by piece as `stream_text` would alone.

    A step is made, for all, when the first of them asks for it: the first text comes while it is
    written, and nothing is written after the last has met a stop string. Row i draws with seed + i.
    """
    check_stops(stops)
    drawn = generate_ids(model, tokenizer, prompts, steps, end=end, **sampling)
    rows = split_rows(drawn, len(prompts))
    return [up_to(tokenizer.decode_stream(until(row, end)), stops) for row in rows]


def stream_text(
    model: TinyGPT, tokenizer: Tokenizer, prompt: str, steps: int, **kwargs: Any
) -> Iterator[str]:
    """Yield a prompt's continuation piece by piece: at most `steps` tokens, to the document's end.

    A string of `stops` ends the text before itself; the rest goes to model.generate. Raises
    ValueError for an empty stop string, or a prompt that the tokenizer cannot encode.
    """
    return stream_batch(model, tokenizer, [prompt], steps, **kwargs)[0]


def write_text(*args: Any, **kwargs: Any) -> str:
    """The whole continuation of `stream_text` as one string."""
    return "".join(stream_text(*args, **kwargs))


class TokenLogProbs:
    """A callback of `generate` that keeps the log-probability of each drawn id, (B,) a step."""

    def __init__(self) -> None:
        self.steps: list[list[float]] = []

    def __call__(self, ids: Tensor, logits: Tensor) -> None:
        """Note a step: ids (B,), logits (B,V)."""
        drawn = logits.float().log_softmax(-1).gather(-1, ids[:, None])
        self.steps.append(drawn[:, 0].tolist())

    def row(self, i: int, n: int) -> list[float]:
        """Of row i the first n, in nats."""
        return [step[i] for step in self.steps[:n]]


class Recorder:
    """Passes ids on, and keeps those that were asked for: none after a stop string."""

    def __init__(self, ids: Iterator[int]):
        self.ids, self.kept = ids, list[int]()

    def __iter__(self) -> Iterator[int]:
        for i in self.ids:
            self.kept.append(i)
            yield i


@dataclass(frozen=True)
class Written:
    """A continuation: its text, its ids, and what the model gave each id, in nats."""

    text: str
    ids: list[int]
    logprobs: list[float]

    @property
    def mean_logprob(self) -> float:
        """Mean log-probability of the drawn tokens under the model itself, at temperature 1."""
        return sum(self.logprobs) / len(self.logprobs) if self.logprobs else 0.0


def write_batch(
    model: TinyGPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    steps: int,
    *,
    end: int | None = None,
    stops: Sequence[str] = (),
    **sampling: Any,
) -> list[Written]:
    """The texts of `stream_batch` when they are done, and how likely the model found them."""
    check_stops(stops)
    logprobs = TokenLogProbs()
    drawn = generate_ids(model, tokenizer, prompts, steps, end=end, callback=logprobs, **sampling)
    written = []
    for i, row in enumerate(split_rows(drawn, len(prompts))):
        ids = Recorder(until(row, end))
        text = "".join(up_to(tokenizer.decode_stream(ids), stops))
        written.append(Written(text, ids.kept, logprobs.row(i, len(ids.kept))))
    return written
