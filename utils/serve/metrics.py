"""What a server counts, in Prometheus' text format."""

import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from model.generation.engine import Engine

SECONDS = 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100


class Metrics:
    """Counters of one server, apart from those of others in the process."""

    def __init__(self, engine: Engine) -> None:
        own = CollectorRegistry()
        self.registry = own
        self.answers = Counter("llm_tiny_answers", "answers", ["path", "status"], registry=own)
        self.read = Counter("llm_tiny_prompt_tokens", "tokens of prompts", registry=own)
        self.known = Counter(
            "llm_tiny_cached_tokens", "tokens of prompts not read again", registry=own
        )
        self.written = Counter("llm_tiny_written_tokens", "tokens drawn", registry=own)
        self.first = Histogram(
            "llm_tiny_first_token_seconds", "until it", buckets=SECONDS, registry=own
        )
        self.between = Histogram(
            "llm_tiny_next_token_seconds", "until another", buckets=SECONDS, registry=own
        )
        self.whole = Histogram(
            "llm_tiny_request_seconds", "until the end", buckets=SECONDS, registry=own
        )
        running = Gauge("llm_tiny_running", "texts under way", registry=own)
        running.set_function(lambda: engine.under_way)
        waiting = Gauge("llm_tiny_waiting", "texts that wait", registry=own)
        waiting.set_function(lambda: len(engine.waiting))
        kept = Gauge("llm_tiny_prefix_bytes", "of beginnings that are kept", registry=own)
        kept.set_function(lambda: sum(b.prefixes.bytes for b in engine.batches.values()))

    def answer(self, path: str, status: int) -> None:
        """An answer goes out."""
        self.answers.labels(path, status).inc()

    def used(self, usage: dict[str, Any]) -> None:
        """A request has ended, or was left: so much was read and written."""
        self.read.inc(usage["prompt_tokens"])
        self.written.inc(usage["completion_tokens"])
        self.known.inc(usage["prompt_tokens_details"]["cached_tokens"])

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self.registry)

    def clock(self) -> "Clock":
        """Begin to time a request."""
        return Clock(self)


class Clock:
    """Times of one request."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.began = time.monotonic()
        self.last: dict[int, float] = {}  # when each text's last token came

    def token(self, i: int) -> None:
        """A token of text i has come."""
        now = time.monotonic()
        if i in self.last:
            self.metrics.between.observe(now - self.last[i])
        else:
            self.metrics.first.observe(now - self.began)
        self.last[i] = now

    def end(self) -> None:
        """All has come."""
        self.metrics.whole.observe(time.monotonic() - self.began)
