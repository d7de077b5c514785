"""Processes that train a sweep's runs. One that crashes or is killed takes no other with it."""

import math
import os
import queue
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

from tok.cli import one_line
from utils.config import Settings
from utils.runs import lock
from utils.sweep.one_run import GO_ON, STOP, Pruned, Report, Values, train_one

Train = Callable[..., Values]
GONE = (EOFError, ConnectionError)  # what a pipe says when the other side has ended


class Crashed(Exception):
    """A run that ended by an error, or whose process did."""


def log_file(settings: Settings) -> Path:
    """Where a run of a worker says what train.py says: runs/sweep-NAME/RUN.log."""
    return Path(settings.train.run + ".log")


def serve(pipe: "Connection[Any, Any]", train: Train) -> None:
    """In a process of its own: train what comes through the pipe until nothing more can come."""
    while True:
        try:
            settings = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        with open(log_file(settings), "a", encoding="utf-8") as claim:
            said_to(log_file(settings))
            try:
                pipe.send(outcome(pipe, train, settings, claim))
            except GONE:
                return


def said_to(log: Path) -> None:
    """Append all that this process prints from now on to a file."""
    with open(log, "a", encoding="utf-8") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())


def outcome(
    pipe: "Connection[Any, Any]", train: Train, settings: Settings, claim: IO[Any]
) -> tuple[str, Any]:
    """(how a run ended, what there is to say of it). A sweep that is gone tells it to stop.

    The run is this process's while `claim` is locked.
    """

    def report(*seen: Any) -> str:
        try:
            pipe.send(("report", seen))
            return str(pipe.recv())
        except GONE:
            return STOP

    try:
        while not lock(claim):  # by a worker whose sweep was killed, or by another sweep
            if report(0, math.inf, None) == STOP:
                return "stopped", None
            time.sleep(0.5)
        return "done", train_one(train, settings, report)
    except Pruned:
        return "pruned", None
    except KeyboardInterrupt:
        return "stopped", None
    except Exception as e:
        traceback.print_exc()
        return "crashed", one_line(e)


class Here:
    """Trains in this process: what `--jobs 0` does, for debuggers."""

    def __init__(self, train: Train):
        self.train_run = train

    def train(self, settings: Settings, report: Report) -> Values:
        """As `Worker.train`."""
        try:
            return train_one(self.train_run, settings, report)
        except Pruned:
            raise
        except Exception as e:
            raise Crashed(one_line(e)) from e

    def close(self) -> None:
        """There is nothing to end."""


class Worker:
    """A process that trains one run after another; begun when it is needed."""

    def __init__(self, train: Train):
        self.train_run = train
        self.process: Any = None

    def start(self) -> None:
        """Begin the process, unless it is there."""
        if self.process is None or not self.process.is_alive():
            spawn = get_context("spawn")  # torch's threads do not survive a fork
            self.pipe, theirs = spawn.Pipe()
            self.process = spawn.Process(target=serve, args=(theirs, self.train_run))
            self.process.start()
            theirs.close()  # so that its end is heard

    def train(self, settings: Settings, report: Report) -> Values:
        """A run's figures. Raises Pruned, Crashed with the reason, or KeyboardInterrupt."""
        self.start()
        log_file(settings).parent.mkdir(parents=True, exist_ok=True)
        try:
            self.pipe.send(settings)
            kind, said = self.pipe.recv()
            while kind == "report":
                self.pipe.send(report(*said))
                kind, said = self.pipe.recv()
        except GONE:
            self.process.join()
            code = self.process.exitcode
            raise Crashed(f"its process ended with exit code {code}") from None
        if kind == "crashed":
            raise Crashed(said)
        if kind == "pruned":
            raise Pruned
        if kind == "stopped":
            raise KeyboardInterrupt
        figures: Values = said
        return figures

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.pipe.close()
            self.process.join()


class Pool:
    """As many workers as jobs; 0 = none, all is done here. In `with` they end at its end."""

    def __init__(self, train: Train, jobs: int):
        workers = [Worker(train) for _ in range(jobs)]
        self.workers: Sequence[Worker | Here] = workers or [Here(train)]
        self.idle: queue.SimpleQueue[Worker | Here] = queue.SimpleQueue()
        for worker in self.workers:
            self.idle.put(worker)
        self.stopping = False
        if jobs > 1:  # each would take all cores
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // jobs)))

    def train(self, settings: Settings, report: Report = lambda *_: GO_ON) -> Values:
        """Train with the next idle worker; see `Worker.train`."""
        worker = self.idle.get()
        try:
            if self.stopping:
                raise KeyboardInterrupt
            return worker.train(settings, lambda *a: STOP if self.stopping else report(*a))
        except Crashed:
            if self.stopping:  # Ctrl-C reaches a worker that has not begun to train, too
                raise KeyboardInterrupt from None
            raise
        finally:
            self.idle.put(worker)

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *exc: object) -> None:
        for worker in self.workers:
            worker.close()


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
