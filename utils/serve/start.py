"""Start a server: models, an engine, a socket; and end it so that streams may finish."""

import asyncio
import logging
import socket
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

import torch
import uvicorn

from model import few_rows
from model.adapt.packed_linear import packed
from model.generation.engine import Engine
from utils.device import pick_device
from utils.native import with_native
from utils.serve.app import make_app
from utils.serve.errors import Stopping
from utils.serve.guard import LOCAL, Limits
from utils.serve.jobs import Server
from utils.serve.metrics import Metrics
from utils.serve.served import Served, load_all
from utils.serve.worker import Worker

BACKLOG = 2048  # connections that wait to be taken


def note(line: str) -> None:
    """Tell people."""
    print(line, file=sys.stderr, flush=True)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. ValueError where it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    if sys.platform != "win32":  # where it would let two servers listen at one port
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(BACKLOG)  # who comes while models are loaded waits
    except OSError as e:
        sock.close()
        raise ValueError(f"{host}:{port}: {e.strerror}; choose another --port or --host") from None
    return sock


async def finish(server: uvicorn.Server, worker: Worker, grace: float) -> None:
    """Once the server is told to end: no new requests, and `grace` seconds for those under way."""
    while not server.should_exit:
        await asyncio.sleep(0.1)
    worker.stop()
    await asyncio.sleep(grace)
    worker.give_up(Stopping("the server has stopped"))


async def close_idle(server: uvicorn.Server, pace: float) -> None:
    """Close connections that ask nothing for `pace` seconds, or do not come to the point."""
    before: dict[Any, Any] = {}
    while True:
        await asyncio.sleep(pace)
        connections: set[Any] = set(server.server_state.connections)
        now = {c: c.cycle for c in connections if c.cycle is None or c.cycle.response_complete}
        for c in now:
            if c in before and before[c] is now[c]:  # no request in between
                c.transport.close()
        before = now


def make_engine(served: Mapping[str, Served], a: Namespace) -> Engine:
    """An engine of models, whose weights are laid out as this machine multiplies them fastest."""
    models = {
        name: packed(few_rows(with_native(one.model)), a.rows) for name, one in served.items()
    }
    for model in models.values():
        model.cache_dtype = torch.int8 if a.cache == "int8" else None
    return Engine(models, rows=a.rows, queue=a.queue, prefix_bytes=a.prefix_mb * 1_000_000)


def make_server(load: Callable[[], Mapping[str, Served]], a: Namespace) -> uvicorn.Server:
    """A server of the models that `load` gives, by the flags of `python -m utils.serve`.

    It is not started yet. They are loaded where they are stepped: see Worker.
    """
    served: dict[str, Served] = {}

    def build() -> Engine:
        served.update(load())
        return make_engine(served, a)

    worker = Worker(build)
    shared = Server(served, worker, a.seconds, Metrics(worker.engine))

    async def watch() -> None:
        await asyncio.gather(finish(server, worker, a.grace), close_idle(server, a.pace))

    local = a.api_key is None and address(a.host) in LOCAL
    limits = Limits(a.api_key, int(a.body_mb * 1_000_000), a.pace, local)
    app = make_app(shared, limits, a.cors, watch)
    config = uvicorn.Config(
        app,
        http="h11",  # whose connections close_idle knows
        ws="none",
        log_level="error",  # its warnings are about what clients send
        access_log=False,
        server_header=False,
        limit_concurrency=a.connections,
        timeout_graceful_shutdown=int(a.grace) + 5,
        backlog=BACKLOG,
    )
    server = uvicorn.Server(config)
    return server


async def serve(a: Namespace, names: Sequence[str]) -> None:
    """Serve runs until a signal comes."""
    with closing(listen(a.host, a.port)) as sock:  # before minutes of loading
        device = pick_device(a.device).device
        server = make_server(lambda: load_all(names, device, note), a)
        raise_open_files(a.connections + 100)
        print(f"http://{address(a.host)}:{sock.getsockname()[1]}", flush=True)
        note("Ctrl-C ends it")
        app: Any = server.config.app
        try:
            await server.serve([sock])
        finally:
            if server.force_exit:  # the second Ctrl-C: what is cancelled would fill pages
                logging.disable()
                app.state.server.worker.end()


def address(host: str) -> str:
    """A host as URLs have it."""
    return f"[{host}]" if ":" in host else host


def raise_open_files(n: int) -> None:
    """Let this process have n files open, as far as the system does: each connection is one."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = n if hard == resource.RLIM_INFINITY else min(n, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
