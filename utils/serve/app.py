"""The routes of the server: a body comes in, an answer goes out."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from model.adapt.quant import count
from utils.serve.choices import named
from utils.serve.errors import Refused, blaming, refusal
from utils.serve.files import add_page
from utils.serve.guard import Guard, Limits
from utils.serve.jobs import Job, Plan, Server, plan_chat, plan_completion
from utils.serve.schema import (
    ChatBody,
    CompletionBody,
    DetokenizeBody,
    ErrorBody,
    TokenizeBody,
    Writing,
)

T = TypeVar("T")
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": what}
    for status, what in {
        400: "a parameter is wrong, missing or not supported; `param` names it",
        401: "the API key is missing or wrong",
        421: "another Host than this machine",
        404: "no such model",
        408: "the body did not come in time",
        413: "the body is too large",
        429: "all rows and the queue are full; come back after Retry-After seconds",
        500: "a fault of the server; its log says more",
        503: "the server is stopping",
        504: "the answer took too long",
    }.items()
}
STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}
PIECES = 1000  # tokens of a text that /tokenize names
GONE = 499  # nginx's status for a client that has left: for the log alone


class Events(StreamingResponse):
    """A job's server-sent events. Who leaves, even before the first, leaves the engine at once."""

    media_type = "text/event-stream"

    def __init__(self, job: Job, usage: bool) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(job.chunks(usage), headers=headers)
        self.job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what comes."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.job.leave()

    async def stream_response(self, send: Send) -> None:
        """Send what comes, and close its generator."""
        async with aclosing(self.body_iterator):  # type: ignore[type-var]
            await super().stream_response(send)


async def unless_gone(request: Request, answer: Awaitable[T]) -> T:
    """An answer, which is given up when the client leaves."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    left, made = asyncio.ensure_future(gone()), asyncio.ensure_future(answer)
    try:
        await asyncio.wait({left, made}, return_when=asyncio.FIRST_COMPLETED)
        if made.done():
            return made.result()
        raise Refused(GONE, "the client has left")
    finally:
        for task in (left, made):
            task.cancel()


async def answered(server: Server, body: Writing, plan: Plan, request: Request) -> Response:
    """Carry out a plan, and answer whole or as a stream."""
    job = await Job(server, plan).begin(body.stream)
    if body.stream:
        usage = body.stream_options is not None and body.stream_options.include_usage
        return Events(job, usage)
    try:
        told = await unless_gone(request, job.whole())
        return await asyncio.to_thread(lambda: JSONResponse(job.answer.whole(told)))
    finally:
        job.leave()


def add_errors(app: FastAPI) -> None:
    """Answer every exception in OpenAI's form."""

    async def answer(request: Request, e: Exception) -> Response:
        refused = refusal(e)
        return JSONResponse(refused.body, refused.status, refused.headers)

    for kind in (
        Refused,
        RequestValidationError,
        HTTPException,
        ValueError,
        RuntimeError,
        Exception,
    ):
        app.add_exception_handler(kind, answer)


def add_writing(app: FastAPI, server: Server) -> None:
    """OpenAI's routes."""

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """What is served, and how long its texts may be."""
        data = [
            {
                "id": one.name,
                "object": "model",
                "created": one.created,
                "owned_by": "llm-tiny",
                "max_model_len": one.context,
                "chat": one.template is not None,
                "parameters": count(one.model),
            }
            for one in server.served.values()
        ]
        return {"object": "list", "data": data}

    @app.post("/v1/completions", responses=STREAM)
    async def completions(body: CompletionBody, request: Request) -> Response:
        """Go on from a prompt."""
        return await answered(server, body, await plan_completion(server, body), request)

    @app.post("/v1/chat/completions", responses=STREAM)
    async def chat(body: ChatBody, request: Request) -> Response:
        """Answer a conversation."""
        return await answered(server, body, await plan_chat(server, body), request)


def add_tokens(app: FastAPI, server: Server) -> None:
    """Routes about tokenizers, as vLLM and lm-evaluation-harness have them."""

    @app.post("/tokenize")
    async def tokenize(body: TokenizeBody) -> Response:
        """Text -> ids; `pieces` names the first 1000 of them."""
        one = server.pick(body.model)
        encode = one.start if body.add_special_tokens else one.encode
        with blaming("prompt"):
            ids = await server.encode(encode, body.prompt)
        pieces = [named(one.tokenizer, i, None) for i in ids[:PIECES]]
        told = {"tokens": ids, "count": len(ids), "max_model_len": one.context, "pieces": pieces}
        return JSONResponse(told)  # FastAPI would look at each id

    @app.post("/detokenize")
    async def detokenize(body: DetokenizeBody) -> dict[str, str]:
        """Ids -> text."""
        one = server.pick(body.model)
        with blaming("tokens"):
            return {"prompt": one.text(body.tokens)}

    @app.get("/tokenizer_info")
    async def tokenizer_info(model: str | None = None) -> dict[str, Any]:
        """Special tokens, and the chat template."""
        one = server.pick(model)
        template = one.pretrained.chat_template if one.pretrained else None
        bos, eos = one.special("bos"), one.special("eos")
        return {"bos_token": bos, "eos_token": eos, "pad_token": eos, "chat_template": template}


def add_state(app: FastAPI, server: Server) -> None:
    """How the server is."""

    @app.get("/health")
    async def health() -> Response:
        """200 while requests are taken, 503 while it stops."""
        if server.worker.stopping:
            raise Refused(503, "the server is stopping", code="stopping")
        return JSONResponse({"status": "ok"})

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """For Prometheus."""
        return PlainTextResponse(server.metrics.text(), media_type="text/plain; version=0.0.4")


def describe(app: FastAPI, names: list[str]) -> None:
    """Let /openapi.json name the models, and no 422: a wrong body has the status 400 here."""
    described = app.openapi()
    for path in described["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    for body in "CompletionBody", "ChatBody":
        described["components"]["schemas"][body]["properties"]["model"]["enum"] = names


def make_app(
    server: Server, limits: Limits, origins: list[str], watch: Callable[[], Awaitable[None]]
) -> FastAPI:
    """The whole app. `watch` runs beside it, and sees to a graceful end."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        server.worker.start()
        watching = asyncio.ensure_future(watch())
        yield
        watching.cancel()
        await asyncio.to_thread(server.worker.end)
        server.encoder.shutdown()

    app = FastAPI(title="llm-tiny", lifespan=life, docs_url=None, redoc_url=None, responses=ERRORS)
    app.state.server = server
    for part in (add_writing, add_tokens, add_state):
        part(app, server)
    add_errors(app)
    add_page(app)
    describe(app, list(server.served))
    app.add_middleware(Guard, limits=limits, count=server.metrics.answer)
    if origins:
        headers = ["Authorization", "Content-Type"]
        app.add_middleware(CORSMiddleware, allow_origins=origins, allow_headers=headers)
    return app
