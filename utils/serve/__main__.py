"""Serve runs: a page to write with, and OpenAI's API for other programs.

python -m utils.serve --run tiny
python -m utils.serve --run smollm2 tiny --port 8080
python -m utils.serve --run tiny --evaluate task.yaml --out results.json
"""

import asyncio
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from tok.cli import Parser, run
from utils.runs import latest_run

EXTRA = "serving needs the packages of an extra: pip install 'llm-tiny[serve]'"


def parse(argv: Sequence[str] | None) -> Namespace:
    """Read the flags."""
    p = Parser(prog="python -m utils.serve", description=__doc__)
    p.add_argument("--run", nargs="+", help="names under runs/, or paths (default: the newest)")
    p.add_argument("--host", default="127.0.0.1", help="0.0.0.0: other machines, too")
    p.add_argument("--port", type=int, default=8000, help="0: a free one (default 8000)")
    p.add_argument("--api-key", metavar="KEY", help="what clients have to send (default none)")
    p.add_argument("--rows", type=int, default=8, help="texts written at once (default 8)")
    p.add_argument("--queue", type=int, default=64, help="texts that may wait (default 64)")
    p.add_argument(
        "--prefix-mb", type=int, default=256, help="memory for known beginnings of prompts"
    )
    about = "keys and values: int8 takes about a quarter of the memory"
    p.add_argument("--cache", choices=("float", "int8"), default="float", help=about)
    p.add_argument("--seconds", type=float, default=600, help="a request may take (default 600)")
    p.add_argument("--grace", type=float, default=10, help="seconds to finish in at the end")
    p.add_argument("--body-mb", type=float, default=4, help="the largest body (default 4)")
    p.add_argument("--pace", type=float, default=30, help="seconds for a client to send or read")
    p.add_argument("--connections", type=int, default=2000, help="the most at once (default 2000)")
    p.add_argument("--cors", nargs="+", default=[], metavar="ORIGIN", help="pages elsewhere")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    p.add_argument(
        "--evaluate",
        nargs="+",
        metavar="TASK.yaml",
        help="do lm-evaluation-harness's tasks instead",
    )
    p.add_argument("--limit", type=int, metavar="N", help="do N samples of each task (default all)")
    p.add_argument("--chat", action="store_true", help="ask the tasks by the run's chat template")
    p.add_argument("--out", metavar="FILE.json", help="write what each sample got, too")
    return p.parse_args(argv)


def check(a: Namespace) -> None:
    """Raise ValueError for flags that make no sense."""
    if not 0 <= a.port < 65536:
        raise ValueError(f"port={a.port} must be from 0 to 65535")
    for name in ("rows", "seconds", "grace", "body_mb", "pace", "connections"):
        if not getattr(a, name) > 0:
            raise ValueError(f"{name}={getattr(a, name)} must be more than 0")
    for name in ("queue", "prefix_mb"):
        if getattr(a, name) < 0:
            raise ValueError(f"{name}={getattr(a, name)} must be 0 or more")
    if a.api_key == "":
        raise ValueError("the API key is empty; leave --api-key out, or give one")
    if a.limit is not None and a.limit < 1:
        raise ValueError(f"limit={a.limit} must be 1 or more")
    if a.out and not Path(a.out).absolute().parent.is_dir():
        raise ValueError(f"--out {a.out}: there is no such directory; make it first")
    if not a.evaluate and (a.limit or a.chat or a.out):
        raise ValueError("--limit, --chat and --out go with --evaluate TASK.yaml; add it")
    if a.host not in ("127.0.0.1", "localhost", "::1") and a.api_key is None:
        print(
            f"note: whoever reaches {a.host} may write; --api-key asks for a key", file=sys.stderr
        )


def show_evaluation(a: Namespace, names: Sequence[str]) -> None:
    """Evaluate a run, print the table, and write the results if there is a file for them."""
    from utils.serve.evaluate import evaluate, table, write_results

    if len(names) > 1:
        raise ValueError(f"--evaluate takes one run, not {len(names)}; call it for each")
    how = {"limit": a.limit, "chat": a.chat, "device": a.device, "batch_size": a.rows}
    results = evaluate(names[0], a.evaluate, **how)
    print(table(results))
    if a.out:
        write_results(results, a.out)


def main(argv: Sequence[str] | None = None) -> None:
    """Load the runs, and serve until Ctrl-C; or evaluate one."""
    a = parse(argv)
    check(a)
    names = a.run or [str(latest_run())]
    if a.evaluate:
        show_evaluation(a, names)
        return
    try:
        from utils.serve.start import serve
    except ImportError as e:
        raise ValueError(f"{EXTRA} ({e.name} is missing)") from None
    asyncio.run(serve(a, names))


if __name__ == "__main__":
    run(main)
