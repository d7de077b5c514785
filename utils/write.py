"""From prompts to text: the start of a document, the model's continuation, decoded as it comes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import tee
from operator import itemgetter
from time import perf_counter

import torch

from data.prepare import END
from model import TinyGPT, generate
from model.static import CompiledStep
from utils.device import cannot_compile


def start_ids(tokenizer, prompt: str, documents: int) -> list[int]:
    """Ids to go on from: <|endoftext|> first if the model learnt documents; never empty."""
    start = [tokenizer.special_tokens[END]] if documents > 1 else []
    if ids := start + tokenizer.encode(prompt):
        return ids
    try:
        return tokenizer.encode("\n")
    except ValueError:  # a text of one line, by characters: any token will do
        return [0]


def up_to(pieces: Iterable[str], stops: Iterable[str]) -> Iterator[str]:
    """The text before the first stop string to be completed, however the pieces are cut.

    Held back is only what may yet become one: "E", "N", "Dx" with the stop "END!" -> "ENDx".
    """
    held, stops = "", list(stops)
    for piece in pieces:
        held += piece
        found = [(held.index(stop) + len(stop), held.index(stop)) for stop in stops if stop in held]
        if found:
            held = held[: min(found)[1]]
            break
        starts = (n for stop in stops for n in range(1, len(stop)) if held.endswith(stop[:n]))
        free = len(held) - max(starts, default=0)
        if free:
            yield held[:free]
        held = held[free:]
    if held:
        yield held


def check_stops(stops: Iterable[str]) -> None:
    """Raise ValueError for an empty stop string, which stands everywhere."""
    if "" in stops:
        raise ValueError("a stop string is empty, and would end every text at once; leave it out")


def ids_of(model: TinyGPT, tokenizer, prompts, steps: int, documents: int, **sampling):
    """`generate` from texts, (B,) a step, only ids that the tokenizer knows; and its stop id."""
    rows = [start_ids(tokenizer, prompt, documents) for prompt in prompts]
    end = tokenizer.special_tokens[END] if documents > 1 else None
    known = min(tokenizer.vocab_size, model.config.vocab_size)
    return generate(model, rows, steps, stop=end, vocab_size=known, **sampling), end


def rows_of(drawn, B: int) -> list[Iterator[int]]:
    """What `generate` yields, (B,) a step, as B rows of ids: made once, to be read in any order."""
    copies = tee((ids.tolist() for ids in drawn), B)
    return [map(itemgetter(i), copy) for i, copy in enumerate(copies)]


def taken(ids: Iterable[int], end: int | None, used: list[int]) -> Iterator[int]:
    """Pass on the ids before `end`, and note them in `used` as they are asked for."""
    for i in ids:
        if i == end:
            return
        used.append(i)
        yield i


def stream_batch(
    model: TinyGPT, tokenizer, prompts, steps: int, *, documents: int = 1, stops=(), **sampling
) -> list[Iterator[str]]:
    """Continue several prompts at once, each piece by piece as `stream_text` would alone.

    A step is made, for all, when the first of them asks for it: the first text comes while it is
    written, and nothing is written after the last has met a stop string. Row i draws with seed + i.
    """
    check_stops(stops)
    drawn, end = ids_of(model, tokenizer, prompts, steps, documents, **sampling)
    rows = (taken(row, end, []) for row in rows_of(drawn, len(prompts)))
    return [up_to(tokenizer.decode_stream(row), stops) for row in rows]


def stream_text(model: TinyGPT, tokenizer, prompt: str, steps: int, **kwargs) -> Iterator[str]:
    """Yield a prompt's continuation piece by piece: at most `steps` tokens, to the document's end.

    `documents` is how many the training text had; a string of `stops` ends the text before itself;
    the rest goes to model.generate. Raises ValueError for an empty stop string, or a prompt that
    the tokenizer cannot spell.
    """
    return stream_batch(model, tokenizer, [prompt], steps, **kwargs)[0]


def write_text(*args, **kwargs) -> str:
    """The whole continuation of `stream_text` as one string."""
    return "".join(stream_text(*args, **kwargs))


def story(state, data, n: int) -> str:
    """Text of at most n tokens that a run's model makes up; its random state is left alone."""
    sampling = {"temperature": 0.6, "top_k": 50, "seed": state.settings["seed"] + state.step}
    documents = data.meta["documents"]
    return write_text(state.model, data.tokenizer, "", n, documents=documents, **sampling).strip()


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
    model: TinyGPT, tokenizer, prompts, steps: int, *, documents: int = 1, stops=(), **sampling
) -> list[Written]:
    """The texts of `stream_batch` when they are done, and how likely the model found them."""
    check_stops(stops)
    columns: list[list[float]] = []

    def note(ids, logits):
        chosen = logits.float().log_softmax(-1).gather(-1, ids[:, None])
        columns.append(chosen[:, 0].tolist())

    drawn, end = ids_of(model, tokenizer, prompts, steps, documents, watch=note, **sampling)
    written = []
    for i, row in enumerate(rows_of(drawn, len(prompts))):
        used: list[int] = []  # as far as the text reads on
        text = "".join(up_to(tokenizer.decode_stream(taken(row, end, used)), stops))
        written.append(Written(text, used, [column[i] for column in columns[: len(used)]]))
    return written


def compile_step(model: TinyGPT, B: int, say) -> None:
    """torch.compile what a step reads for B rows, and keep that only if it writes faster.

    `say` is told how long compiling took, and which of the two it is; without a compiler, eager.
    """
    start = torch.zeros((B, 1), dtype=torch.long, device=next(model.parameters()).device)
    if why := cannot_compile(start.device):
        say(f"compile off: {why}, so the model runs eager")
        return

    def pace(steps=32):
        began = perf_counter()
        for ids in generate(model, start, steps, temperature=0):
            ids.tolist()
        return B * steps / (perf_counter() - began)

    eager = max(pace(), pace(), pace())
    began = perf_counter()
    vars(model)["features"] = CompiledStep(model)
    try:
        pace()
    except RuntimeError as e:  # a compiler that is there and does not work, say for want of headers
        del vars(model)["features"]
        why = " ".join(str(e).split())[:80]
        say(f"compile off: {type(e).__name__}: {why}; the model runs eager")
        return
    took = perf_counter() - began
    fast = max(pace(), pace(), pace())
    say(f"compiling took {took:.1f} s; {fast:,.0f} tok/s compiled, {eager:,.0f} eager")
    if fast <= eager:
        del vars(model)["features"]
        say("compile off: eager is the faster here")
