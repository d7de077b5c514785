"""A conversation with a model that learnt to answer: its turns, its special tokens, its cache.

What somebody types never becomes a special token: only what the chat template itself writes does.
Letters: T = block_size.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from model import TinyGPT, generate
from model.generation.caches import new_cache
from tok import Tokenizer
from tok.special import special_parts
from utils.writing.stops import check_stops, up_to
from utils.writing.template import ChatTemplate

FIRST = 0xD800  # half a surrogate pair: no text has one


class Marked:
    """Text whose special tokens are plain where they were typed: their first character is hidden.

    `mark` what was typed; `ids` of a text then takes as special tokens only what was not marked.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        first = sorted({token[0] for token in tokenizer.special_tokens})
        self.hidden = {c: chr(FIRST + i) for i, c in enumerate(first)}
        self.shown = str.maketrans({hidden: c for c, hidden in self.hidden.items()})

    def mark(self, text: str) -> str:
        """The text, without anything that is read as a special token."""
        if bad := [c for c in text if "\ud800" <= c <= "\udfff"]:
            raise ValueError(f"the text has {bad[0]!r}, half a surrogate pair; is it UTF-8?")
        for token in self.tokenizer.special_tokens:
            text = text.replace(token, self.hidden[token[0]] + token[1:])
        return text

    def parts(self, text: str) -> Iterator[tuple[str, bool]]:
        """Cut a text at special tokens that are not marked: (part, whether it is one)."""
        return special_parts(text, self.tokenizer.special_tokens)

    def ids(self, text: str) -> list[int]:
        """Ids of a text of which parts are marked."""
        ids: list[int] = []
        for part, special in self.parts(text):
            if special:
                ids.append(self.tokenizer.special_tokens[part])
            else:
                ids += self.tokenizer.encode(part.translate(self.shown))
        return ids


def ends_of_turn(template: ChatTemplate, marked: Marked) -> set[int]:
    """Ids that end an answer: eos, and the special token that the template puts behind one.

    A template may refuse an answer without a question after it; one that refuses both says no more.
    """
    known = marked.tokenizer.special_tokens
    eos = template.tokens.get("eos_token")
    ends = {known[eos]} if eos in known else set()
    content = chr(FIRST + 0x7FF)  # stands nowhere else
    question, answer = {"role": "user", "content": "?"}, {"role": "assistant", "content": content}
    for messages in (question, answer), (question, answer, question):
        try:
            text = template(messages, add_generation_prompt=False)
        except ValueError:
            continue
        _, found, behind = text.rpartition(content)
        part, special = next(marked.parts(behind.lstrip()), ("", False))
        return ends | {known[part]} if found and special else ends
    return ends


@dataclass
class Turn:
    """What was said, and what was answered."""

    said: str
    answer: str = ""


class Chat:
    """A conversation: `answer(text, steps)` streams the answer to what was said before and now.

    `sampling` is what `generate` takes. The cache is kept from turn to turn, so only what is new is
    read. When all does not fit into T tokens any more, the oldest turns are left out, and `note` is
    told so once; the system message stays. Turn i draws with seed + i.
    """

    def __init__(
        self,
        model: TinyGPT,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        *,
        system: str | None = None,
        stops: Sequence[str] = (),
        seed: int | None = None,
        cache: bool = True,
        note: Callable[[str], object] = print,
        **sampling: Any,
    ) -> None:
        check_stops(stops)
        self.model, self.tokenizer, self.template = model, tokenizer, template
        self.marked, self.stops, self.seed, self.note = Marked(tokenizer), stops, seed, note
        self.ends = ends_of_turn(template, self.marked)
        kept = new_cache(model, 1)
        self.sampling = {**sampling, "cache": cache, "kept": kept if cache else None}
        self.sampling["vocab_size"] = min(tokenizer.vocab_size, model.config.vocab_size)
        self.system = system
        self.turns = list[Turn]()
        self.count = 0  # turns, with those that are left out by now
        self.text, self.ids = "", list[int]()  # what the model has read
        self.written = list[int]()  # what it has written since

    def messages(self, turns: Iterable[Turn], said: str) -> list[dict[str, str]]:
        """The messages of some turns and one that has no answer yet, marked."""
        told = [] if self.system is None else [("system", self.system)]
        for turn in turns:
            told += [("user", turn.said), ("assistant", turn.answer)]
        told.append(("user", said))
        return [{"role": role, "content": self.marked.mark(text)} for role, text in told]

    def prompt(self, first: int, said: str) -> tuple[str, list[int]]:
        """The text up to the next answer, without the turns before `first`, and its ids.

        Where it goes on from what was read and written, the ids of that stay as they are: those of
        the same text, encoded, may be others.
        """
        text = self.template(self.messages(self.turns[first:], said))
        if self.turns:
            answer = self.turns[-1].answer
            before = self.text + self.marked.mark(answer)
            whole = self.tokenizer.decode(self.written) == answer  # no stop string has cut it
            if whole and text.startswith(before):
                return text, self.ids + self.written + self.marked.ids(text[len(before) :])
        return text, self.marked.ids(text)

    def fit(self, said: str, steps: int) -> tuple[str, list[int]]:
        """The prompt with as many turns as leave room for an answer; older ones are forgotten.

        Raises ValueError if the message alone is too long.
        """
        T, n = self.model.config.block_size, len(self.turns)
        room = min(steps, max(1, T // 4))
        for first in range(n + 1):
            text, ids = self.prompt(first, said)
            if len(ids) + room <= T:
                break
        if len(ids) >= T:
            raise ValueError(f"{len(ids)} tokens are too many for block_size={T}; say less at once")
        if first and self.count == n:
            self.note(f"the conversation outgrows block_size={T}: its oldest turns are left out")
        self.turns = self.turns[first:]
        return text, ids

    def answer(
        self, said: str, steps: int, callback: Callable[[Tensor, Tensor], object] | None = None
    ) -> Iterator[str]:
        """The answer piece by piece, at most `steps` tokens of it.

        Raises ValueError, and forgets what was said, if it is empty or too long, or if the template
        refuses it. An answer that is not read to its end counts as far as it was read.
        """
        if not said.strip():
            raise ValueError("an empty message; say something")
        self.text, self.ids = self.fit(said, steps)
        self.written = []
        steps = min(steps, self.model.config.block_size - len(self.ids))
        seed = None if self.seed is None else self.seed + self.count
        how = {**self.sampling, "seed": seed, "callback": callback}
        drawn = generate(self.model, [self.ids], steps, stop=self.ends, **how)
        self.turns.append(Turn(said))
        self.count += 1
        return self.stream(map(int, drawn), self.turns[-1])

    def stream(self, drawn: Iterable[int], turn: Turn) -> Iterator[str]:
        """The text of ids up to the end of the turn, which gets what has been read of it."""
        for piece in up_to(self.tokenizer.decode_stream(self.record(drawn)), self.stops):
            turn.answer += piece
            yield piece

    def record(self, drawn: Iterable[int]) -> Iterator[int]:
        """The ids before the end of the turn, which are kept."""
        for i in drawn:
            if i in self.ends:
                return
            self.written.append(i)
            yield i
