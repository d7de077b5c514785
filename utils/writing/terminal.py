"""Prompts in, text out: files, pipes, a terminal's colours, a conversation."""

import io
import os
import stat
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TextIO

from tok.files import as_text, read_text

if TYPE_CHECKING:  # prompts are read before torch is imported
    from torch import Tensor


def note(text: str) -> None:
    """Tell people something without touching stdout."""
    print(f"note: {text}", file=sys.stderr, flush=True)


def bold(text: str) -> str:
    """The text in bold, on a terminal whose user has not set NO_COLOR (no-color.org)."""
    plain = not text or not sys.stdout.isatty() or os.environ.get("NO_COLOR")
    return text if plain else f"\033[1m{text}\033[0m"


def piped() -> bool:
    """Whether stdin is a pipe or a file, not a terminal or nothing."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):  # closed, or replaced
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def stdin() -> TextIO:
    """sys.stdin; ValueError where it is closed."""
    if sys.stdin is None:
        raise ValueError("stdin is closed; give --prompt or --prompt-file")
    return sys.stdin


def read_prompts(prompts: list[str] | None, file: str | None) -> list[str]:
    """Prompts as given, or one from a file or stdin ("-", or a pipe), or one that is empty.

    The last line end of a file or pipe does not count. Raises ValueError for prompts and a file, a
    closed stdin, or no UTF-8.
    """
    if prompts and file:
        raise ValueError("--prompt and --prompt-file exclude each other; give one")
    if file is None and (prompts == ["-"] or (prompts is None and piped())):
        file = "-"
    if file is None:
        return prompts or [""]
    text = read_text(file) if file != "-" else as_text(stdin().buffer.read(), "stdin")
    return [text.replace("\r\n", "\n").removesuffix("\n")]


def heading(i: int, n: int) -> None:
    """Number text i of n, if there are several."""
    if n > 1:
        print(bold(f"--- {i}"))


def show(prompt: str, pieces: Iterable[str]) -> str:
    """Print a prompt once, in bold on a terminal, and its continuation as it comes; gives both."""
    print(bold(prompt), end="", flush=True)
    text = prompt
    for piece in pieces:
        print(piece, end="", flush=True)
        text += piece
    print()
    return text


class Pace:
    """Tokens per second: a callback of `generate`."""

    def __init__(self) -> None:
        self.tokens, self.start = 0, time.perf_counter()

    def __call__(self, ids: "Tensor", logits: "Tensor") -> None:
        """Count a step's ids (B,)."""
        self.tokens += len(ids)

    def __str__(self) -> str:
        seconds = time.perf_counter() - self.start
        return f"{self.tokens} tokens in {seconds:.2f} s, {self.tokens / seconds:,.0f} tok/s"


def converse(write: Callable[[str, Pace], Iterable[str]], *, echo: bool = True) -> None:
    """Write what follows each line of stdin until it ends; then its pace. Bad input costs one line.

    With `echo` the line itself is shown before. Ctrl-C ends the text that is being written, or,
    where a line is awaited, the conversation.
    """
    lines = stdin()
    if isinstance(lines, io.TextIOWrapper):
        lines.reconfigure(errors="surrogateescape")  # what is not UTF-8 is refused line by line
    while True:
        print("> ", end="", file=sys.stderr, flush=True)
        if not (line := lines.readline()):
            print(file=sys.stderr)
            return
        prompt, pace = line.removesuffix("\n"), Pace()
        try:
            show(prompt if echo else "", write(prompt, pace))
        except ValueError as e:
            print(f"error: {e}", file=sys.stderr, flush=True)
            continue
        except KeyboardInterrupt:
            print(flush=True)
        note(str(pace))
