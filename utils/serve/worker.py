"""The thread that steps an engine. An event loop asks it, and gets the events of its requests."""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from model.generation.engine import Engine
from model.generation.requests import Event, QueueFull, Request
from utils.serve.errors import Stopping

logger = logging.getLogger("llm_tiny.serve")


class Stream:
    """The events of some requests as they come; an exception ends it."""

    def __init__(self) -> None:
        self.numbers: list[int] = []  # the engine's, once it has taken them
        self.news: asyncio.Queue[Event | Exception] = asyncio.Queue()

    async def next(self, seconds: float) -> tuple[int, Event]:
        """Wait for the next event: (which of the requests, what).

        Raises what ended them before their end, or TimeoutError.
        """
        coming = asyncio.ensure_future(self.news.get())
        try:
            await asyncio.wait({coming}, timeout=seconds)  # wait_for may swallow a cancellation
            if not coming.done():
                raise TimeoutError
            news = coming.result()
        finally:
            coming.cancel()
        if isinstance(news, Exception):
            raise news
        return self.numbers.index(news.number), news


class Worker:
    """Owns an engine. All work on it happens in one thread, between two of its steps.

    `build` makes it in that thread, too: each thread that computes has threads of OpenMP of its
    own, and where there are more of them than cores, GNU's hardly spin, which cost a fifth. So
    nothing else in the process may compute, loading included.
    """

    def __init__(self, build: Callable[[], Engine]) -> None:
        self.jobs: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self.streams: dict[int, Stream] = {}  # by the engine's number
        self.stopping = self.ended = False
        built: Future[None] = Future()
        self.thread = threading.Thread(target=self.work, args=(build, built), daemon=True)
        self.thread.start()
        built.result()

    def start(self) -> None:
        """Pass events on to the running event loop."""
        self.loop = asyncio.get_running_loop()

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """What a function gives that is called between two steps."""
        future = self.loop.create_future()

        def tell(answer: Any, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is None:
                future.set_result(answer)
            else:
                future.set_exception(error)

        def job() -> None:
            answer, error = None, None
            try:
                answer = function(*args)
            except Exception as e:  # belongs to who asked, not to the thread
                error = e
            self.loop.call_soon_threadsafe(tell, answer, error)

        self.jobs.put(job)
        return await future

    async def submit(self, requests: Sequence[Request]) -> Stream:
        """Hand in requests, all or none. Raises QueueFull, Stopping, or the engine's ValueError."""
        stream = Stream()
        try:
            await self.call(self.take, requests, stream)
        except asyncio.CancelledError:  # they may have been taken by now
            self.cancel(stream)
            raise
        return stream

    def take(self, requests: Sequence[Request], stream: Stream) -> None:
        """Submit requests to the engine."""
        if self.stopping:
            raise Stopping("the server is stopping")
        for request in requests:
            self.engine.check(request)
        if len(requests) > (room := max(0, self.engine.room)):
            raise QueueFull(f"{len(requests)} requests, and room for {room}; come back later")
        for request in requests:
            number = self.engine.submit(request, group=id(stream))
            stream.numbers.append(number)
            self.streams[number] = stream

    def cancel(self, stream: Stream, which: int | None = None) -> None:
        """Drop one of a stream's requests, or all; those that have ended are passed over."""
        self.jobs.put(
            lambda: self.drop(stream.numbers if which is None else [stream.numbers[which]])
        )

    def drop(self, numbers: Sequence[int]) -> None:
        """Take requests out of the engine, whose rows are free then."""
        for number in numbers:
            if self.streams.pop(number, None) is not None:
                self.engine.cancel(number)

    def stop(self) -> None:
        """Take no more requests; those under way go on."""
        self.stopping = True

    def end(self) -> None:
        """End what is still under way, then the thread."""
        self.stopping = True

        def last() -> None:
            self.fail(Stopping("the server has stopped"))
            self.ended = True

        self.jobs.put(last)
        self.thread.join()

    def fail(self, error: Exception) -> None:
        """End all requests with an error."""
        streams = set(self.streams.values())
        self.drop(list(self.streams))
        for stream in streams:
            self.loop.call_soon_threadsafe(stream.news.put_nowait, error)

    def give_up(self, error: Exception) -> None:
        """The same, from another thread."""
        self.jobs.put(lambda: self.fail(error))

    def work(self, build: Callable[[], Engine], built: "Future[None]") -> None:
        """The thread: jobs, then a step; it waits where there is nothing to do."""
        try:
            self.engine = build()
        except BaseException as e:
            built.set_exception(e)
            return
        built.set_result(None)
        while not self.ended:
            idle = not (self.engine.waiting or self.engine.under_way)
            try:
                job = self.jobs.get(block=idle)
            except queue.Empty:
                job = self.step
            try:
                job()
            except Exception as e:  # out of memory, say: who was under way is told, others come
                logger.exception("the engine failed")
                self.fail(e)

    def step(self) -> None:
        """Step the engine, and have its events passed on."""
        events = self.engine.step()
        self.loop.call_soon_threadsafe(self.deliver, events)

    def deliver(self, events: Sequence[Event]) -> None:
        """Pass events on, in the event loop."""
        for event in events:
            stream = self.streams.get(event.number)
            if stream is not None:  # else it was dropped meanwhile
                stream.news.put_nowait(event)
                if event.finish:
                    self.streams.pop(event.number, None)
