"""From the events of one request to what clients see: text up to a stop string, tokens, an end."""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from model.generation.requests import Event, Token
from tok import Tokenizer
from utils.writing.stops import Stops


@dataclass
class News:
    """What is new of a choice: text, the tokens it is made of, and at last why it ended."""

    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    finish: str | None = None


class Choice:
    """One text on its way to a client: `add` an event, and send what is new.

    A character that several tokens make is sent whole, with the last of them. Text that may become
    a stop string waits, and its tokens with it. The id that ends a text is among the tokens, and
    adds nothing to the text. `echo` is sent before all; of a scored prompt the first `unseen`
    tokens are not told.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stops: Sequence[str],
        ends: frozenset[int],
        echo: str = "",
        unseen: int = 0,
    ) -> None:
        self.tokenizer, self.ends = tokenizer, ends
        self.echo, self.unseen = echo, unseen
        self.characters = codecs.getincrementaldecoder("utf-8")("replace")
        self.stops = Stops(stops)
        self.drawn = 0  # tokens, with those that a stop string cuts off
        self.cached = 0
        self.held: list[Token] = []
        self.finish: str | None = None

    def add(self, event: Event) -> News:
        """Take an event in."""
        text, echo, self.echo = "", self.echo, ""
        self.held += event.scored[self.unseen :]
        if event.token is not None:
            self.drawn += 1
            self.held.append(event.token)
            if event.token.id not in self.ends:
                piece = self.tokenizer.decode_bytes([event.token.id])
                text = self.stops.add(self.characters.decode(piece))
        if event.finish and not self.stops.met:
            text += self.stops.add(self.characters.decode(b"", final=True))
            text += self.stops.rest()
        if event.finish or self.stops.met:
            self.finish = "stop" if self.stops.met else event.finish
            self.cached = event.cached
        tokens: list[Token] = []
        if not self.stops.held or self.finish:
            tokens, self.held = self.held, tokens
        return News(echo + text, tokens, self.finish)


def piece_of(tokenizer: Tokenizer, i: int) -> str:
    """A token as a name: its text, or `bytes:\\xe2\\x80` where it is part of a character."""
    raw = tokenizer.decode_bytes([i])
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{b:02x}" for b in raw)


def named(tokenizer: Tokenizer, i: int, logprob: float | None) -> dict[str, Any]:
    """A token with its name, bytes and log-probability."""
    raw = list(tokenizer.decode_bytes([i]))
    return {"id": i, "token": piece_of(tokenizer, i), "bytes": raw, "logprob": logprob}


def content(tokenizer: Tokenizer, tokens: Sequence[Token]) -> list[dict[str, Any]]:
    """Tokens as chats have them: each with its alternatives, the likeliest first."""
    return [
        {
            **named(tokenizer, token.id, token.logprob),
            "top_logprobs": [named(tokenizer, i, p) for i, p in token.top.items()],
        }
        for token in tokens
    ]


def columns(tokenizer: Tokenizer, tokens: Sequence[Token], offset: int) -> dict[str, Any]:
    """Tokens as completions have them: four lists. `offset` is where in the text they begin.

    The first token of a scored prompt has no log-probability. What was drawn is among the
    alternatives even if it is not one of the likeliest. Where an offset falls within a character
    it is that of the character.
    """
    characters = codecs.getincrementaldecoder("utf-8")("replace")
    tops, offsets = [], []
    for token in tokens:
        offsets.append(offset)
        offset += len(characters.decode(tokenizer.decode_bytes([token.id])))
        top = {piece_of(tokenizer, i): logprob for i, logprob in token.top.items()}
        if token.logprob is not None:
            top.setdefault(piece_of(tokenizer, token.id), token.logprob)
        tops.append(None if token.logprob is None else top)
    return {
        "tokens": [piece_of(tokenizer, token.id) for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": tops,
        "text_offset": offsets,
    }
