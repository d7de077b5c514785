"""One line on stderr that says how far a long work has come. Silent where nobody looks."""

import sys
import time


class Progress:
    """`Progress("merges", 4000)(1200)` shows "merges 30 %", at most five times a second.

    Only a terminal sees it, and only after the first second.
    """

    def __init__(self, what: str, total: int):
        self.what, self.total = what, total
        self.shown = ""
        self.due = time.monotonic() + 1 if sys.stderr.isatty() else float("inf")

    def __call__(self, done: int) -> None:
        """Show the share of the work that is done."""
        now = time.monotonic()
        if now >= self.due:
            self.due = now + 0.2
            self.show(f"{self.what} {done / max(self.total, 1):.0%}")

    def show(self, line: str) -> None:
        """Write a line over the last one."""
        sys.stderr.write("\r" + line.ljust(len(self.shown)) + ("\r" if not line else ""))
        sys.stderr.flush()
        self.shown = line

    def close(self) -> None:
        """Take the line away."""
        if self.shown:
            self.show("")
