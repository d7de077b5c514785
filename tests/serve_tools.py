"""A server in a thread of the tests' own process, and what its tests ask of it."""

import asyncio
import json
import re
import threading
import time
from contextlib import contextmanager

import pytest
import torch
from sharp_model import model

from model.generation.engine import Engine
from utils.serve.__main__ import check, parse
from utils.serve.served import load_all

WHY = "pip install 'llm-tiny[serve]' httpx"
for package in "fastapi", "uvicorn", "prometheus_client", "jinja2":
    pytest.importorskip(package, reason=WHY)
httpx = pytest.importorskip("httpx", reason=WHY)
FLAGS = ["--port", "0", "--grace", "1"]


class Running:
    """A server that runs: its address, a client, the engine behind it."""

    def __init__(self, uv, port):
        self.uv, self.url = uv, f"http://127.0.0.1:{port}"
        self.port = port
        self.server = uv.config.app.state.server
        self.worker, self.engine = self.server.worker, self.server.worker.engine
        self.http = httpx.Client(base_url=self.url, timeout=30)

    def ask(self, path="/v1/completions", **body):
        """Post a body, which has to be answered well."""
        answer = self.http.post(path, json={"model": next(iter(self.server.served)), **body})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def refused(self, path="/v1/completions", **body):
        """Post a body, which has to be refused: (status, error)."""
        answer = self.http.post(path, json={"model": next(iter(self.server.served)), **body})
        assert answer.status_code >= 400, answer.text
        return answer.status_code, answer.json()["error"]

    def stream(self, path="/v1/completions", **body):
        """The events of a stream."""
        body = {"model": next(iter(self.server.served)), "stream": True, **body}
        with self.http.stream("POST", path, json=body) as answer:
            assert answer.status_code == 200, answer.read()
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = [line for line in answer.iter_lines() if line]
        assert all(line.startswith("data: ") for line in lines)
        assert lines[-1] == "data: [DONE]"
        return [json.loads(line[6:]) for line in lines[:-1]]

    def counted(self, name):
        """A number of /metrics."""
        text = self.http.get("/metrics").text
        return float(re.search(rf"^llm_tiny_{name} (.*)$", text, re.M)[1])

    def wait_until_idle(self, seconds=10):
        """Nothing is under way, and nothing waits."""
        end = time.monotonic() + seconds
        while self.counted("running") or self.counted("waiting"):
            assert time.monotonic() < end, "texts are still under way"
            time.sleep(0.02)
        assert not self.worker.streams


@contextmanager
def running(*runs, flags=()):
    """A server of some runs."""
    from utils.serve.start import listen, make_server

    a = parse([*FLAGS, *flags])
    check(a)
    names = [str(run) for run in runs]
    uv = make_server(lambda: load_all(names, torch.device("cpu"), lambda line: None), a)
    sock = listen(a.host, a.port)
    thread = threading.Thread(target=lambda: asyncio.run(uv.serve([sock])))
    thread.start()
    try:
        while not uv.started:
            assert thread.is_alive()
            time.sleep(0.01)
        server = Running(uv, sock.getsockname()[1])
        yield server
        server.http.close()
    finally:
        uv.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server does not stop"


def with_worker(test, **how):
    """Run an async test beside an engine's thread."""

    from utils.serve.worker import Worker

    async def run():
        worker = Worker(lambda: Engine(model(block_size=48), **how))
        worker.start()
        try:
            await test(worker)
        finally:
            await asyncio.to_thread(worker.end)
        assert not worker.thread.is_alive()
        assert not worker.streams

    asyncio.run(run())
