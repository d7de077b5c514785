"""A server under load: clients that ask at once, in threads, over HTTP, as others' clients do."""

import http.client
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

CLIENTS, WRITTEN = 8, 64
LOADS = 1, 2, 4, 8, 16  # clients at once
EACH = 3  # requests of each of them, one after the other


@contextmanager
def served(run: str, device: str) -> Iterator["Client"]:
    """Our server with a run, in a process of its own. ValueError if it does not start."""
    command = [sys.executable, "-m", "utils.serve", "--run", run, "--port", "0", "--device", device]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if not (url := process.stdout.readline().strip()):
                raise ValueError(f"the server did not start: {' '.join(command[1:])}")
            yield Client(url)
        finally:
            process.terminate()


@dataclass(frozen=True)
class Times:
    """Of one request, in seconds."""

    first: float  # until its first token
    whole: float
    tokens: int


class Client:
    """Asks a server for completions, the likeliest tokens."""

    def __init__(self, url: str) -> None:
        self.address = urlsplit(url)
        with self.open("GET", "/v1/models") as answer:
            self.model = json.load(answer)["data"][0]["id"]

    @contextmanager
    def open(self, method: str, path: str, body: Any = None) -> Iterator[http.client.HTTPResponse]:
        """One request. ValueError for an answer that is an error."""
        connection = http.client.HTTPConnection(self.address.netloc, timeout=600)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            if answer.status != 200:
                raise ValueError(f"{self.address.netloc}: {answer.status} {answer.read(500)!r}")
            yield answer
        finally:
            connection.close()

    def ask(self, prompt: str, tokens: int) -> int:
        """Have tokens written; how many there were."""
        body = {"model": self.model, "prompt": prompt, "max_tokens": tokens, "temperature": 0}
        with self.open("POST", "/v1/completions", body) as answer:
            return int(json.load(answer)["usage"]["completion_tokens"])

    def stream(self, prompt: str, tokens: int) -> Times:
        """The same as a stream: when its parts came."""
        body: dict[str, Any] = {"model": self.model, "prompt": prompt, "max_tokens": tokens}
        body |= {"temperature": 0, "stream": True}
        start, came = time.perf_counter(), []
        with self.open("POST", "/v1/completions", body) as answer:
            for line in answer:
                if line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["text"]:
                    came.append(time.perf_counter() - start)
        return Times(came[0], came[-1], len(came))


def at_once(ask: Callable[[str], object], prompts: list[str]) -> Callable[[], list[object]]:
    """Ask with all prompts at once."""

    def call() -> list[object]:
        with ThreadPoolExecutor(len(prompts)) as pool:
            return list(pool.map(ask, prompts))

    return call


def in_turn(ask: Callable[[str], object], prompts: list[str]) -> Callable[[], list[object]]:
    """Ask with one prompt after the other."""
    return lambda: [ask(prompt) for prompt in prompts]


def under_load(client: Client, prompts: list[str], clients: int) -> dict[str, float]:
    """So many clients, EACH requests each: tokens per second; times at 50 and 95 %, in ms."""

    def one(i: int) -> list[Times]:
        return [client.stream(prompts[(i + k) % len(prompts)], WRITTEN) for k in range(EACH)]

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        times = [t for made in pool.map(one, range(clients)) for t in made]
    seconds = time.perf_counter() - start
    told = {"clients": clients, "rate": sum(t.tokens for t in times) / seconds}
    for name in "first", "whole":
        cuts = statistics.quantiles([getattr(t, name) for t in times], n=20, method="inclusive")
        told |= {f"{name}_p50": cuts[9] * 1e3, f"{name}_p95": cuts[18] * 1e3}
    return told


def told(load: dict[str, float]) -> str:
    """A line about a load."""
    line = f"  {load['clients']:>2.0f} clients {load['rate']:8.1f} tok/s"
    for name in "first", "whole":
        line += f"   {name} {load[f'{name}_p50']:7,.0f} / {load[f'{name}_p95']:,.0f} ms"
    return line
