"""From a body to requests for the engine, and from the engine's events to an answer."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from model.generation.requests import Request
from utils.serve.answers import Answer, sse
from utils.serve.choices import Choice, News
from utils.serve.errors import Refused, blaming, refusal
from utils.serve.metrics import Metrics
from utils.serve.schema import ChatBody, CompletionBody, Writing
from utils.serve.served import Served
from utils.serve.worker import Worker

T = TypeVar("T")
MOST_TOLD = 300_000  # log-probabilities in an answer: 200 MB on their way; a context of 8192 fits
MANY = 64  # tokens: of a prompt of thousands, with alternatives, a chunk takes a second
PENALTIES = "repetition_penalty", "presence_penalty", "frequency_penalty"
SAMPLING = ("temperature", "top_p", "top_k", "min_p", *PENALTIES)


@dataclass
class Server:
    """What is shared by all requests."""

    served: Mapping[str, Served]
    worker: Worker
    seconds: float  # that a request may take
    metrics: Metrics
    encoder: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "encoder"))

    async def encode(self, function: Callable[..., T], *args: Any) -> T:
        """Call what uses a tokenizer: one call after the other, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.encoder, function, *args)

    def pick(self, name: str | None) -> Served:
        """A model by name; without one the first. Raises Refused."""
        if name is None:
            return next(iter(self.served.values()))
        if name not in self.served:
            there = ", ".join(self.served)
            message = f"the model {name!r} is not served; there are: {there}"
            raise Refused(404, message, "model", "model_not_found")
        return self.served[name]


@dataclass
class Plan:
    """What a body asks for: requests to the engine, and the answer that they become."""

    answer: Answer
    requests: list[Request]


def begun(body: Writing, served: Served, *, chat: bool, logprobs: bool) -> Plan:
    """A plan without texts yet."""
    name = f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}"
    answer = Answer(name, int(time.time()), served, chat, logprobs, body.return_token_ids)
    return Plan(answer, [])


def add(plan: Plan, body: Writing, ids: list[int], steps: int, **how: Any) -> None:
    """Plan n texts that go on from one prompt."""
    served, room = plan.answer.served, plan.answer.served.context
    if bad := [i for i in ids if i >= served.known]:
        message = f"prompt: id {bad[0]} is not one of the {served.known} of {served.name}"
        raise Refused(400, message, "prompt", "invalid_value")
    if len(ids) > room:
        name = "messages" if plan.answer.chat else "prompt"
        message = f"{name}: {len(ids)} tokens are more than the {room} that {served.name} reads"
        raise Refused(400, message, name, "context_length_exceeded")
    if len(ids) + steps > room:
        message = f"max_tokens: after a prompt of {len(ids)} tokens {served.name} can write "
        message += f"{room - len(ids)}, not {steps}"
        raise Refused(400, message, "max_tokens", "context_length_exceeded")
    same = {name: getattr(body, name) for name in SAMPLING}
    for i in range(body.n):
        seed = None if body.seed is None else body.seed + i
        request = Request(
            ids, steps, seed=seed, vocab_size=served.known, model=served.name, **same, **how
        )
        plan.requests.append(request)


async def plan_completion(server: Server, body: CompletionBody) -> Plan:
    """Plan what /v1/completions asks for."""
    served = server.pick(body.model)
    plan = begun(body, served, chat=False, logprobs=body.logprobs is not None)
    score = body.echo and body.logprobs is not None
    for prompt in body.prompts:
        typed = prompt if isinstance(prompt, str) else None
        with blaming("prompt"):
            ids = prompt if isinstance(prompt, list) else await server.encode(served.start, prompt)
        add(plan, body, ids, body.max_tokens, stop=served.ends, top=body.logprobs, score=score)
        unseen = 0 if typed is None else served.unseen(typed)
        echo = served.text(ids[unseen:]) if body.echo else ""
        for _ in range(body.n):
            choice = Choice(served.tokenizer, body.stops, served.ends, echo, unseen)
            plan.answer.add(choice, ids)
    return plan


async def plan_chat(server: Server, body: ChatBody) -> Plan:
    """Plan what /v1/chat/completions asks for."""
    served = server.pick(body.model)
    if body.top_logprobs and not body.logprobs:
        raise Refused(400, "top_logprobs needs logprobs: true", "top_logprobs")
    plan = begun(body, served, chat=True, logprobs=body.logprobs)
    messages = [{"role": m.role, "content": m.text} for m in body.messages]
    # in the engine's thread: rendering limits the memory of the whole process for a moment
    with blaming("messages"):
        text = await server.worker.call(served.render, messages)
        ids = await server.encode(served.chat_ids, text)
        if not ids:
            raise ValueError("the chat template makes nothing of them")
    steps = body.max_completion_tokens
    steps = body.max_tokens if steps is None else steps
    steps = max(0, served.context - len(ids)) if steps is None else steps
    top = body.top_logprobs if body.logprobs else None
    add(plan, body, ids, steps, stop=served.chat_ends, top=top)
    for _ in range(body.n):
        plan.answer.add(Choice(served.tokenizer, body.stops, served.chat_ends), ids)
    return plan


def check_told(plan: Plan, stream: bool) -> None:
    """Raise Refused for more log-probabilities than an answer may hold; a stream keeps only those
    of prompts.
    """
    told = 0
    for r in plan.requests:
        if r.top is not None:
            tokens = r.score * len(r.ids) + (0 if stream else r.steps)
            told += tokens * (r.top + 1)
    if told > MOST_TOLD:
        message = f"logprobs: {told:,} numbers are more than {MOST_TOLD:,}; ask for fewer texts, "
        message += "tokens or alternatives at once" + ("" if stream else ", or stream them")
        raise Refused(400, message, "logprobs", "invalid_value")


class Job:
    """A plan that the engine carries out: `await begin()`, and `leave()` at last."""

    def __init__(self, server: Server, plan: Plan) -> None:
        self.server, self.plan, self.answer = server, plan, plan.answer
        self.began = time.monotonic()

    async def begin(self, stream: bool) -> "Job":
        """Hand in the requests. Raises as `Worker.submit`, and Refused for more than ever fit."""
        check_told(self.plan, stream)
        engine, n = self.server.worker.engine, len(self.plan.requests)
        if n > engine.most + engine.queue:
            most = engine.most + engine.queue
            raise Refused(400, f"{n} texts in one request are more than {most}", "n")
        self.stream = await self.server.worker.submit(self.plan.requests)
        return self

    def leave(self) -> None:
        """Let the engine drop what has not ended."""
        self.server.worker.cancel(self.stream)

    async def news(self) -> AsyncGenerator[tuple[int, News], None]:
        """What is new, choice by choice."""
        server, choices = self.server, self.answer.choices
        clock = server.metrics.clock()
        try:
            while any(choice.finish is None for choice in choices):
                left = self.began + server.seconds - time.monotonic()
                i, event = await self.stream.next(max(0, left))
                if choices[i].finish:  # drawn before the engine heard of a stop string
                    continue
                new = choices[i].add(event)
                if event.token is not None:
                    clock.token(i)
                if new.finish:
                    server.worker.cancel(self.stream, i)
                yield i, new
            clock.end()
        except TimeoutError:
            raise Refused(504, f"it took more than {server.seconds:g} s", code="timeout") from None
        except Exception as e:  # what ended the engine's work is said in its log
            raise refusal(e) from e
        finally:
            server.metrics.used(self.answer.usage())

    async def whole(self) -> list[News]:
        """All of each choice."""
        told = [News() for _ in self.answer.choices]
        async with aclosing(self.news()) as news:
            async for i, new in news:
                told[i].text += new.text
                told[i].tokens += new.tokens
                told[i].finish = new.finish
        return told

    async def chunks(self, usage: bool) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events; the last of a choice has nothing but its end."""
        try:
            async with aclosing(self.news()) as news:
                async for i, new in news:
                    for part in parts_of(new):
                        yield await self.event(i, part, usage)
            if usage:
                yield sse(self.answer.last())
        except Exception as e:  # the status is sent: what went wrong is the last event
            yield sse(refusal(e).body)
        yield sse("[DONE]")

    async def event(self, i: int, news: News, usage: bool) -> bytes:
        """A chunk; that of a scored prompt is made beside the event loop."""
        if len(news.tokens) < MANY:
            return sse(self.answer.chunk(i, news, usage))
        return sse(await asyncio.to_thread(self.answer.chunk, i, news, usage))


def parts_of(news: News) -> list[News]:
    """What is new as chunks have it: its text, its end."""
    parts = [News(news.text, news.tokens)] if news.text or news.tokens else []
    return parts + ([News(finish=news.finish)] if news.finish else [])
