"""Training steps beside busy programs. Each contender is a process with an environment of its own.

How threads wait is read from the environment when OpenMP is loaded, so no process can compare.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection

from tok.cli import spin_briefly
from utils.bench.workloads import Shape, step_apart

STEPS = 3  # of each call
WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")  # what says how threads wait


@contextmanager
def busy_loops(n: int) -> Iterator[None]:
    """So many processes that do nothing, as fast as they can."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Processes that start inside wait for each other as `variables` say, or by default."""
    before = dict(os.environ)
    for name in WAITING:
        os.environ.pop(name, None)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def serve(pipe: Connection, shape: Shape, device: str, dtype: str, nanogpt: str | None) -> None:
    """In a process of its own: take STEPS steps whenever asked, until the pipe is closed."""
    step = step_apart(shape, "auto", device, dtype, nanogpt)
    try:
        while pipe.recv():
            for _ in range(STEPS):
                step()
            pipe.send(True)
    except EOFError:
        pass


class Stepper:
    """`Stepper(environment, ...)()` takes STEPS training steps in a fresh process."""

    def __init__(self, stack: ExitStack, variables: Mapping[str, str], *work: object):
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, *work), daemon=True)
        with environment(variables):
            process.start()
        self.pid = process.pid
        theirs.close()
        stack.callback(process.join)
        stack.callback(self.pipe.close)

    def __call__(self) -> None:
        """Ask, and wait until it is done. EOFError if the process has died."""
        self.pipe.send(True)
        self.pipe.recv()


def as_started() -> dict[str, str]:
    """The variables that our commands set for themselves."""
    variables: dict[str, str] = {}
    spin_briefly(variables)
    return variables


def contenders(
    stack: ExitStack, shape: Shape, device: str, dtype: str, nanogpt: str | None
) -> dict[str, Stepper]:
    """Ours and nanoGPT's steps as people start them, and by either way of waiting."""
    ways = {"llm-tiny": as_started(), "- spinning": {}, "- passive": {"OMP_WAIT_POLICY": "PASSIVE"}}
    work = shape, device, dtype
    found = {who: Stepper(stack, way, *work, None) for who, way in ways.items()}
    if nanogpt:
        found["nanoGPT"] = Stepper(stack, {}, *work, nanogpt)
        found["nano passive"] = Stepper(stack, ways["- passive"], *work, nanogpt)
    return found
