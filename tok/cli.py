"""What every command shares: flags checked by name, errors in one line, progress on a terminal."""

import argparse
import atexit
import difflib
import gc
import io
import os
import sys
import time
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises ValueError, and names the nearest flag when one is unknown."""

    def __init__(self, **kwargs: Any):
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def error(self, message: str) -> NoReturn:
        """Raise ValueError: `run` prints it in one line."""
        raise ValueError(f"{message}; see --help")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, or raise ValueError with the unknown flag and the one nearest to it.

        It knows all flags: this method and not parse_args, because subcommands call this one.
        """
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            kind = "flag" if unknown[0].startswith("-") else "argument"
            raise ValueError(unknown_name(kind, unknown[0], self._option_string_actions))
        return found, unknown


def unknown_name(kind: str, name: str, known: Sequence[str] | dict[str, Any]) -> str:
    """Say that a name is unknown and which one is nearest.

    `unknown_name("flag", "--stpes", ["--steps"])` -> "unknown flag --stpes; did you mean --steps?"
    """
    near = difflib.get_close_matches(name.split("=")[0], list(known), n=1, cutoff=0.5)
    return f"unknown {kind} {name}; " + (f"did you mean {near[0]}?" if near else "see --help")


def cores() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def spin_briefly(environ: MutableMapping[str, str] = os.environ) -> None:
    """Let threads of OpenMP that wait for each other sleep soon, before the library is loaded.

    GNU's (libgomp, of torch on Linux) spins 300,000 times, while another program may want the core
    that a thread waits for. 5,000 costs a free machine nothing, and 1,000 a third of a small
    step. Nothing changes if GOMP_SPINCOUNT or OMP_WAIT_POLICY is set.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & environ.keys():
        environ["GOMP_SPINCOUNT"] = "5000"


def use_threads(n: int, environ: MutableMapping[str, str] = os.environ) -> None:
    """Let NumPy and torch use n threads, unless OMP_NUM_THREADS is set.

    NumPy's BLAS reads it as it is loaded, so if it has been, the command begins again.
    """
    if "OMP_NUM_THREADS" not in environ:
        environ["OMP_NUM_THREADS"] = str(n)
        if "numpy" in sys.modules and sys.platform != "win32":  # there, a shell would not wait
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)


def run(main: Callable[[Sequence[str] | None], int | None], threads: int | None = None) -> NoReturn:
    """Call a script's main and exit: bad input is one line on stderr and status 2, Ctrl-C is 130.

    `--debug` anywhere on the command line shows the traceback instead. `threads` is for work so
    small that more of them cost time; else the libraries choose.
    """
    spin_briefly()
    if threads:
        use_threads(threads)
    atexit.register(gc.freeze)  # no last search for garbage: after torch's import it takes 0.5 s
    args = [a for a in sys.argv[1:] if a != "--debug"]
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a letter shows "?", and goes on
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        status = main(args) or 0
        sys.stdout.flush()
    except (ValueError, OSError) as e:
        if isinstance(e, BrokenPipeError):  # `... | head` has read enough: nothing to report
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)
        if "--debug" in sys.argv[1:]:
            raise
        print("error: " + " ".join(describe(e).split()), file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def one_line(e: Exception, most: int = 200) -> str:
    """What an exception says, cut to `most` characters, in one line; its kind if it is silent."""
    return " ".join(str(e).split())[:most] or type(e).__name__


def describe(e: Exception) -> str:
    """One line for an exception: OSErrors give the path first, then the system's reason."""
    if isinstance(e, OSError) and e.filename is not None:
        return f"{e.filename}: {e.strerror}"
    return str(e)


class Progress:
    """One line on stderr: `Progress("merges", 4000)(1200)` shows "merges 30%".

    Only a terminal sees it, after the first second and then at most five times a second.
    """

    def __init__(self, what: str, total: int):
        self.what, self.total, self.done = what, total, 0
        self.shown = ""
        self.due = time.monotonic() + 1 if sys.stderr.isatty() else float("inf")

    def __call__(self, done: int) -> None:
        """Show the share of the work that is done."""
        self.done = done
        now = time.monotonic()
        if now >= self.due:
            self.due = now + 0.2
            self.show(f"{self.what} {done / max(self.total, 1):.0%}")

    def add(self, more: int) -> None:
        """The same, with what was done since the last call."""
        self(self.done + more)

    def show(self, line: str) -> None:
        """Write a line over the last one."""
        sys.stderr.write("\r" + line.ljust(len(self.shown)) + ("" if line else "\r"))
        sys.stderr.flush()
        self.shown = line

    def close(self) -> None:
        """Take the line away."""
        if self.shown:
            self.show("")
