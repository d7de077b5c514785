"""Work on pieces in other processes, results in order.

Each worker is a fresh Python that runs `serve` and reads jobs from a pipe. Written by hand because
concurrent.futures runs the caller's script again (spawn) or copies its threads and locks (fork):
this works from a notebook and from a script without `if __name__ == "__main__"`.
"""

import pickle
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from tok.cli import cores

LARGE = 8_000_000  # bytes; below, other processes cost more than they give
Job = TypeVar("Job")
Result = TypeVar("Result")
START = f"import sys; sys.path[:1] = {{}}; from {__name__} import serve; serve()"


def workers_for(n_bytes: int) -> int:
    """How many processes to use for so much text: one a CPU, or one where more cost too much."""
    if n_bytes < LARGE:
        return 1
    return cores()


def in_order(
    task: Callable[[Job], Result], jobs: Iterable[Job], workers: int = 1
) -> Iterator[Result]:
    """task(job) for each job in turn, by `workers` processes; by this one if workers is 1.

    `task` and the jobs must pickle. At most two jobs a worker wait, so memory stays bounded. An
    error in a task comes out here.
    """
    if workers < 1:
        raise ValueError(f"workers={workers}; give 1 or more")
    if workers == 1:
        yield from map(task, jobs)
        return
    with ExitStack() as stack:
        idle: SimpleQueue[Worker] = SimpleQueue()
        for _ in range(workers):
            idle.put(stack.enter_context(Worker(task)))
        threads = stack.enter_context(ThreadPoolExecutor(workers))
        waiting: deque[Future[Any]] = deque()
        for job in jobs:
            waiting.append(threads.submit(ask, idle, job))
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def ask(idle: "SimpleQueue[Worker]", job: Any) -> Any:
    """Have any idle worker do a job."""
    worker = idle.get()
    try:
        return worker.ask(job)
    finally:
        idle.put(worker)


class Worker:
    """One process that does `task`."""

    def __init__(self, task: Callable[[Any], Any]):
        home = str(Path(__file__).parents[__name__.count(".")])
        start = START.format([home, *sys.path])  # not the folder that we happen to stand in
        self.process = subprocess.Popen(
            [sys.executable, "-c", start], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.send(task)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()

    def send(self, message: object) -> None:
        """Write one message."""
        assert self.process.stdin
        pickle.dump(message, self.process.stdin, pickle.HIGHEST_PROTOCOL)
        self.process.stdin.flush()

    def ask(self, job: object) -> Any:
        """The result of one job, or the error that it raised."""
        assert self.process.stdout
        try:
            self.send(job)
            done, result = pickle.load(self.process.stdout)
        except (EOFError, BrokenPipeError):
            raise ChildProcessError("a worker process ended early; try workers=1") from None
        if not done:
            raise result
        return result


def serve() -> None:
    """The life of a worker: read the task, then do one job after the other."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    inlet, outlet = sys.stdin.buffer, sys.stdout.buffer
    task = pickle.load(inlet)
    while True:
        try:
            job = pickle.load(inlet)
        except EOFError:
            return
        try:
            answer = True, task(job)
        except Exception as e:
            answer = False, e
        pickle.dump(answer, outlet, pickle.HIGHEST_PROTOCOL)
        outlet.flush()
