"""The ladder, from counting to the Transformer: every rung on one text, beside compressors.

    python -m utils.ladder
    python -m utils.ladder --data my.txt --out runs/my.png --json runs/my.json

Each rung learns from the first nine tenths and is scored on the last. Prints a table in Markdown
and draws it to a PNG. A rung alone, with what it teaches: python -m utils.ladder.bigram
"""

import json
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from tok.cli import run, unknown_name
from tok.files import check_writable, replacing
from utils.ladder.compressors import GET_ZSTD, zstd
from utils.ladder.corpus import Corpus, checked_effort, read_corpus, rung_parser
from utils.ladder.picture import Bar, draw

RUNGS = {  # module: its family, which has a colour in the picture
    "counts": "counting",
    "network": "network",
    "bigram": "counting",
    "trigram": "counting",
    "bengio": "network",
    "bag": "attention",
    "block": "attention",
    "gpt_numpy": "attention",
    "gpt_torch": "attention",
    "compressors": "compressor",
}
WIDTHS = (26, 24, 10, 11, 13)
HEAD = ("rung", "sees", "parameters", "CPU seconds", "bits per byte")


def line(cells: Sequence[str]) -> str:
    """A row of the table in Markdown, words to the left and figures to the right."""
    padded = [c.ljust(w) for c, w in zip(cells[:2], WIDTHS[:2], strict=True)]
    padded += [c.rjust(w) for c, w in zip(cells[2:], WIDTHS[2:], strict=True)]
    return "| " + " | ".join(padded) + " |"


def heading() -> str:
    """The table's first two lines."""
    rule = [("-" * w, "-" * (w - 1) + ":")[i > 1] for i, w in enumerate(WIDTHS)]
    return f"{line(HEAD)}\n{line(rule)}"


def climb(corpus: Corpus, rungs: Sequence[str], effort: float) -> Iterator[tuple[Bar, float]]:
    """(family, result, CPU seconds) for all that the rungs reach, from the bottom up."""
    for name in rungs:
        module, start = import_module(f"utils.ladder.{name}"), time.process_time()
        for result in module.climb(corpus, effort):
            yield (RUNGS[name], result), time.process_time() - start
            start = time.process_time()


def printed(rows: Iterator[tuple[Bar, float]]) -> Iterator[tuple[Bar, float]]:
    """The same rows; each is printed when it has come."""
    print(heading(), flush=True)
    for (family, result), seconds in rows:
        name, sees, params, bits = result
        print(line((name, sees, f"{params:,}", f"{seconds:.1f}", f"{bits:.3f}")), flush=True)
        yield (family, result), seconds


def write_json(path: str, corpus: Corpus, rows: Sequence[tuple[Bar, float]]) -> None:
    """The table for machines."""
    found: dict[str, Any] = {"version": 1, "text": corpus.name}
    found["held_out_bytes"] = len(corpus.val_text.encode())
    found["rows"] = [
        {"family": family, **result._asdict(), "cpu_seconds": round(seconds, 3)}
        for (family, result), seconds in rows
    ]
    with replacing(path) as temporary:
        Path(temporary).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Climb, print, draw. ValueError and OSError for what can't be."""
    p = rung_parser("", __doc__)
    p.add_argument("--only", nargs="+", default=list(RUNGS), metavar="RUNG", help=", ".join(RUNGS))
    p.add_argument("--out", default="runs/ladder.png", metavar="PNG", help="runs/ladder.png")
    p.add_argument("--json", metavar="FILE", help="write the table as JSON, too")
    args = p.parse_args(argv)
    for name in args.only:
        if name not in RUNGS:
            raise ValueError(unknown_name("rung", name, RUNGS))
    start = time.perf_counter()
    corpus, effort = read_corpus(args.data), checked_effort(args.effort)
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    for path in filter(None, (args.out, args.json)):
        check_writable(path)
    rows = list(printed(climb(corpus, args.only, effort)))
    if "compressors" in args.only and zstd() is None:
        print(GET_ZSTD)
    draw([bar for bar, _ in rows], f"From counting to the Transformer: {corpus.name}", args.out)
    if args.json:
        write_json(args.json, corpus, rows)
    print(f"\n{time.perf_counter() - start:.0f} s; picture: {args.out}")


if __name__ == "__main__":
    run(main, threads=1)
