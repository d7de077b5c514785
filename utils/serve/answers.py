"""The shapes of OpenAI's answers: whole, in chunks, and errors."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from model.generation.requests import Token
from utils.serve.choices import Choice, News, columns, content
from utils.serve.served import Served

Json = dict[str, Any]


def sse(value: Json | str) -> bytes:
    """A server-sent event."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"data: {text}\n\n".encode()


@dataclass
class Answer:
    """What is told of a request: its id, its choices, what each is told with.

    `logprobs` and `ids` say whether tokens are told of, and their ids; a chat differs in names and
    shapes.
    """

    id: str
    created: int
    served: Served
    chat: bool
    logprobs: bool
    ids: bool
    choices: list[Choice] = field(default_factory=list)
    prompts: list[list[int]] = field(default_factory=list)  # the ids of each choice's
    offsets: list[int] = field(default_factory=list)  # characters of each choice that were told
    begun: set[int] = field(default_factory=set)  # choices of which something was told

    def add(self, choice: Choice, prompt: list[int]) -> None:
        """Have another choice."""
        self.choices.append(choice)
        self.prompts.append(prompt)
        self.offsets.append(0)

    def head(self, chunk: bool) -> Json:
        """What every answer begins with."""
        kind = "chat.completion" if self.chat else "text_completion"
        if self.chat and chunk:
            kind += ".chunk"
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.served.name,
            "system_fingerprint": None,
        }

    def tokens_told(self, i: int, tokens: Sequence[Token]) -> Json | None:
        """The logprobs of a choice's tokens, if they were asked for."""
        if not self.logprobs:
            return None
        tokenizer, told = self.served.tokenizer, Json()
        if not self.chat:
            told = columns(tokenizer, tokens, self.offsets[i])
        if self.chat or self.ids:
            told["content"] = content(tokenizer, tokens)
        if self.chat:
            told["refusal"] = None
        return told

    def choice(self, i: int, news: News, chunk: bool) -> Json:
        """One choice, or what is new of it."""
        first = i not in self.begun
        self.begun.add(i)
        said: Json = {"logprobs": self.tokens_told(i, news.tokens), "finish_reason": news.finish}
        self.offsets[i] += len(news.text)
        if self.ids:
            said["token_ids"] = [token.id for token in news.tokens]
            if first:
                said["prompt_token_ids"] = self.prompts[i]
        if not self.chat:
            return {"index": i, "text": news.text, **said}
        if not chunk:
            message = {"role": "assistant", "content": news.text, "refusal": None}
            return {"index": i, "message": message, **said}
        delta = {"role": "assistant"} if first else {}
        if news.text or first:
            delta["content"] = news.text
        return {"index": i, "delta": delta, **said}

    def chunk(self, i: int, news: News, usage: bool) -> Json:
        """What is new of a choice; where the usage comes last, all chunks before have null."""
        choices = [self.choice(i, news, True)]
        return {**self.head(True), "choices": choices, **({"usage": None} if usage else {})}

    def last(self) -> Json:
        """The chunk with the usage."""
        return {**self.head(True), "choices": [], "usage": self.usage()}

    def whole(self, news: Sequence[News]) -> Json:
        """The answer in one piece."""
        choices = [self.choice(i, one, False) for i, one in enumerate(news)]
        return {**self.head(False), "choices": choices, "usage": self.usage()}

    def usage(self) -> Json:
        """Tokens read and written; a prompt counts once, however many texts go on from it."""
        read = sum(len(ids) for ids in {id(ids): ids for ids in self.prompts}.values())
        drawn = sum(choice.drawn for choice in self.choices)
        cached = sum(choice.cached for choice in self.choices)
        return {
            "prompt_tokens": read,
            "completion_tokens": drawn,
            "total_tokens": read + drawn,
            "prompt_tokens_details": {"cached_tokens": min(read, cached)},
        }
