"""Many texts at once: they join and leave a batch at every step, and each is as it would be alone.

`Engine.step` reads at most one block of one prompt and draws one token of every text that is past
its prompt, so a long prompt holds nobody up for longer than a block. What prompts begin with is
kept, and not read twice. It knows ids, and neither text, files nor sockets.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from model.generation.caches import new_cache
from model.generation.limits import check_sampling
from model.generation.loop import inference
from model.generation.prefixes import BLOCK, Prefixes
from model.generation.prompts import seeds_of
from model.generation.requests import SAMPLING, Event, QueueFull, Request, Text, Token
from model.generation.rows import Rows, last_tokens
from model.generation.step import TokenStep, can_step
from model.gpt import TinyGPT


class Batch:
    """The texts of one model: some whose prompt is being read, some that are being written."""

    def __init__(self, model: TinyGPT, rows: int, size: int, prefix_bytes: int) -> None:
        self.model, self.size = model, size
        self.rows = Rows(model, rows, size)
        self.prefixes = Prefixes(prefix_bytes)
        self.reading: deque[Text] = deque()
        self.writing: list[Text] = []
        self.next = TokenStep(model) if can_step(model) else model.hidden_states

    def join(self, text: Text) -> None:
        """Begin with a text."""
        cache = new_cache(self.model, 1, self.size)
        text.cache = cache
        if text.request.score:  # the logits of all its prompt are wanted
            text.scored.append(Token(text.ids[0]))
        else:
            text.cached = self.prefixes.find(text.ids, cache)
        self.reading.append(text)

    def read(self) -> Event | None:
        """Read a block of one of the prompts, which take turns; those read go over to writing."""
        if not self.reading:
            return None
        text = self.reading.popleft()
        cache, ids = text.cache, text.ids
        assert cache is not None
        n = cache.lengths[0]
        end = min(n + BLOCK, len(ids) - 1)
        if end > n:
            idx = torch.tensor(ids[n:end], device=self.rows.all.device)[None]
            x = self.model.hidden_states(idx, cache)
            if text.request.score:
                logits = self.model.head(x[0])
                text.scored += text.tokens(ids[n + 1 : end + 1], logits)
        if end < len(ids) - 1:
            self.reading.append(text)
            return None
        self.prefixes.keep(ids[:end], cache)
        if not text.request.steps:
            return Event(text.number, text.scored, finish="length", cached=text.cached)
        self.rows.join(cache)
        self.writing.append(text)
        text.cache = None
        return Event(text.number, scored=text.scored) if text.scored else None

    def write(self) -> Iterator[Event]:
        """Draw a token of every text that is past its prompt."""
        if not self.writing:
            return
        self.rows.open_next()
        idx = last_tokens([text.ids[-1] for text in self.writing], self.rows.all)
        logits = self.model.head(self.next(idx, self.rows.cache)[:, -1])  # (B,V)
        for row in reversed(range(len(self.writing))):  # who leaves, leaves rows before it alone
            yield self.draw(row, logits[row])

    def draw(self, row: int, logits: Tensor) -> Event:
        """Draw the next token of a row, which may be its last."""
        text = self.writing[row]
        r = text.request
        i = text.pick(logits)
        token = text.tokens([i], logits[None])[0]
        text.ids.append(i)
        text.drawn[i] += 1
        if i not in r.stop and len(text.ids) < len(r.ids) + r.steps:
            return Event(text.number, token=token)
        self.leave(row)
        finish = "stop" if i in r.stop else "length"
        return Event(text.number, token=token, finish=finish, cached=text.cached)

    def leave(self, row: int) -> None:
        """Take a text out of the batch; the last one gets its row."""
        self.rows.leave(row)
        self.writing[row] = self.writing[-1]
        self.writing.pop()

    def cancel(self, number: int) -> bool:
        """Take a text out wherever it stands; whether it was there."""
        for text in self.reading:
            if text.number == number:
                self.reading.remove(text)
                return True
        for row, text in enumerate(self.writing):
            if text.number == number:
                self.leave(row)
                return True
        return False


class Engine:
    """Serves requests to one model, or to several by name that share weights (adapters, say).

    `rows` texts are under way at a time, each of up to `size` tokens (default block_size); `queue`
    more may wait: a free row goes to the group that has the fewest, then to who came first. A text
    of which nothing is written (steps=0) may have one token more: its last is only scored. Keys and
    values of prompts' beginnings take up to prefix_bytes for each model. Not for use by several
    threads at once.
    """

    def __init__(
        self,
        models: TinyGPT | Mapping[str, TinyGPT],
        *,
        rows: int = 8,
        size: int | None = None,
        queue: int = 64,
        prefix_bytes: int = 256_000_000,
    ) -> None:
        models = {"": models} if isinstance(models, TinyGPT) else models
        self.batches = {}
        for name, model in models.items():
            most = min(size or model.config.block_size, model.config.block_size)
            self.batches[name] = Batch(model, rows, most, prefix_bytes)
        self.most, self.queue = rows, queue
        self.waiting: deque[Text] = deque()
        self.numbers = 0

    def submit(self, request: Request, group: int = 0) -> int:
        """Take a request; gives the number that its events have.

        Requests of one group, the texts of a client say, do not push those of others aside.

        Raises QueueFull, or ValueError for what `generate` would refuse, a model that is not
        there, or a text that would outgrow the context.
        """
        self.check(request)
        if self.room < 1:
            raise QueueFull(f"{len(self.waiting)} requests wait already; come back later")
        self.numbers += 1
        device = self.batches[request.model].rows.all.device
        self.waiting.append(Text(self.numbers, request, device, group))
        return self.numbers

    def check(self, r: Request) -> None:
        """Raise ValueError for a request that cannot be served."""
        if r.model not in self.batches:
            names = ", ".join(sorted(self.batches))
            raise ValueError(f"model={r.model!r} is not one of: {names}")
        check_sampling(**{name: getattr(r, name) for name in SAMPLING})
        batch = self.batches[r.model]
        V = batch.model.config.vocab_size
        if not r.ids or not all(isinstance(i, int) and 0 <= i < V for i in r.ids):
            raise ValueError(f"the prompt has to be ids from 0 to {V - 1}, one at least")
        if r.vocab_size is not None and not 1 <= r.vocab_size <= V:
            raise ValueError(f"vocab_size={r.vocab_size} must be from 1 to the model's {V}")
        if r.steps < 0:
            raise ValueError(f"steps={r.steps} must be 0 or more")
        most = batch.size if r.steps else batch.size + 1  # the last id is scored, and not read
        if len(r.ids) + r.steps > most:
            raise ValueError(
                f"a prompt of {len(r.ids)} tokens and {r.steps} more exceed the {most} that "
                "a text may have"
            )
        seeds_of(r.seed, 1)

    def cancel(self, number: int) -> bool:
        """Drop a request, and free its row at once; whether it was still there."""
        for text in self.waiting:
            if text.number == number:
                self.waiting.remove(text)
                return True
        with torch.inference_mode():  # rows are moved, and were made in it
            return any(batch.cancel(number) for batch in self.batches.values())

    @property
    def room(self) -> int:
        """Requests that may come before the next step."""
        return self.most + self.queue - self.under_way - len(self.waiting)

    @property
    def under_way(self) -> int:
        """Requests that have a row."""
        return sum(len(b.reading) + len(b.writing) for b in self.batches.values())

    def next_text(self) -> Text:
        """Take the one that gets the next row out of those that wait."""
        rows = Counter(t.group for b in self.batches.values() for t in (*b.reading, *b.writing))
        text = min(self.waiting, key=lambda text: rows[text.group])
        self.waiting.remove(text)
        return text

    def step(self) -> list[Event]:
        """Read a block of a prompt and draw a token of each text; gives what came of it."""
        while self.waiting and self.under_way < self.most:
            text = self.next_text()
            self.batches[text.request.model].join(text)
        events: list[Event] = []
        for batch in self.batches.values():
            with inference(batch.model):
                news = batch.read()
                events += [news] if news else []
                events += batch.write()
        return events

    def run(self) -> Iterator[Event]:
        """Step until nothing is left to do."""
        while self.waiting or self.under_way:
            yield from self.step()
