"""Measure training, writing, attention, the tokenizer: tables, and last a line of JSON.

    python bench.py                             # two minutes
    python bench.py --only train attention --runs 15
    python bench.py --nanogpt ../nanoGPT        # a checkout of nanoGPT, in the same run
    python bench.py --only tokenizer --peers --text my.txt --vocab 4096
    python bench.py --run smollm2               # how fast a run writes, beside transformers
    python bench.py --run smollm2 --only serve  # a server and its clients
    python bench.py --only busy --nanogpt ../nanoGPT    # steps beside 0, 1 and 2 busy programs
    python bench.py --profile runs/trace        # where the time goes, for Perfetto or TensorBoard

Contenders take turns, and medians count.
"""

import json
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tok.cli import Parser, run

TINY = Path(__file__).parent / "data" / "tiny.txt"
EFFORT = ("gflops", "of_matmul", "mfu", "peak_memory")
BENCHES = {  # name, as in `RACES`: the unit of its rates, what further figures there are
    "train": ("tok/s", EFFORT),
    "write": ("tok/s", ()),
    "run": ("tok/s", ()),
    "attention": ("tok/s", EFFORT),
    "tokenizer": ("MB/s", ()),
    "busy": ("tok/s", ()),
    "serve": ("tok/s", ()),
}
OF_RUN = {"run", "serve"}
USUAL = [name for name in BENCHES if name not in ("busy", *OF_RUN)]


def short(value: float) -> str:
    """A number for people: 59.3, but 1,695."""
    return f"{value:,.{0 if value >= 1000 else 1}f}"


COLUMNS = {  # what a row may have beside the usual: its head, and how it is shown
    "gflops": ("GFLOP/s", short),
    "of_matmul": ("of matmul", lambda v: f"{v:.0%}"),
    "mfu": ("MFU", lambda v: f"{v:.1%}"),
    "peak_memory": ("memory", lambda v: f"{v / 1e6:,.0f} MB"),
}


def head(name: str, unit: str, more: Sequence[str]) -> str:
    """The first line of a table."""
    usual = f"\n{name:30}{'':13}{'median':>10}{'spread':>8}{'runs':>6}{unit:>10}{'x time':>8}"
    return usual + "".join(f"{COLUMNS[key][0]:>11}" for key in more)


def line(row: dict[str, Any], work: str, more: Sequence[str]) -> str:
    """A row of a table."""
    spread = f"{row['spread']:.0%}" if row["runs"] > 1 else ""
    usual = f"{work:30}{row['who']:13}{short(row['ms']):>7} ms{spread:>8}{row['runs']:>6}"
    usual += f"{short(row['rate']):>10}{row['ratio']:>8.2f}"
    if "of_copy" in row:
        usual += f"  reads {row['gb_per_s']:.1f} GB/s of weights, {row['of_copy']:.0%} of a copy"
    shown = (COLUMNS[key][1](row[key]) if key in row else "" for key in more)
    return (usual + "".join(f"{text:>11}" for text in shown)).rstrip()


def parse(argv: Sequence[str] | None) -> Namespace:
    """Read the flags."""
    p = Parser(prog="bench.py", description=__doc__)
    p.add_argument("--only", nargs="+", choices=[*BENCHES], help=f"default: {' '.join(USUAL)}")
    p.add_argument("--run", help="measure instead how fast this run writes, or is served")
    p.add_argument(
        "--peer", metavar="URL", help="another server with the same weights, beside ours"
    )
    p.add_argument("--runs", type=int, help="counted rounds; default: 4 seconds of them, 3 to 15")
    p.add_argument("--nanogpt", metavar="DIR", help="a checkout of nanoGPT to measure beside")
    p.add_argument("--peers", action="store_true", help="also tokenizers, tiktoken, transformers")
    p.add_argument("--profile", metavar="DIR", type=Path, help="write traces there instead")
    p.add_argument("--text", default=TINY, help="for the tokenizer (default data/tiny.txt)")
    p.add_argument("--vocab", type=int, default=1000, help="tokens to learn (default 1000)")
    p.add_argument("--workers", type=int, default=1, help="processes of the tokenizer (default 1)")
    p.add_argument("--compile", action="store_true", help="measure torch.compile, too")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    p.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16")
    a = p.parse_args(argv)
    a.only = a.only or (["run"] if a.run else USUAL)
    if set(a.only) - OF_RUN if a.run else set(a.only) & OF_RUN:
        raise ValueError("--run goes with --only run or serve, and these with --run")
    if a.runs is not None and a.runs < 1:
        raise ValueError(f"runs={a.runs} must be at least 1")
    if a.nanogpt and not Path(a.nanogpt, "model.py").is_file():
        raise ValueError(f"no {Path(a.nanogpt, 'model.py')}; --nanogpt names a checkout of nanoGPT")
    return a


def origin(a: Namespace, argv: Sequence[str] | None) -> dict[str, Any]:
    """Where figures come from: date, commit, command, rounds asked for, machine."""
    from utils.reporting.summary import commit, machine

    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    command = shlex.join(["python", "bench.py", *(sys.argv[1:] if argv is None else argv)])
    return {"date": now, **commit(), "command": command, "runs": a.runs, "machine": machine()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks named and print what they give."""
    a, start, results = parse(argv), time.perf_counter(), []

    import torch

    from utils.bench.limits import limits_of
    from utils.bench.races import RACES
    from utils.device import fastest, peak_memory, pick_device

    device = pick_device(a.device, a.dtype)
    device = fastest(device) if a.dtype == "auto" else device
    a.dtype = device.precision  # the races have processes of their own
    print(f"{device.describe()}, torch {torch.__version__}")
    if cost := device.cost():
        print(f"note: {cost}")
    if a.profile:
        from utils.bench.profile import profile

        profile(a.profile, device)
        return 0
    limits = limits_of(device)
    how = "by its datasheet" if limits.named else "measured"
    print(f"matmul {limits.flops / 1e9:,.0f} GFLOP/s, {how}; ", end="")
    print(f"a copy {limits.copy / 1e9:,.1f} GB/s, read and written, measured")
    for name in a.only:
        unit, figures = BENCHES[name]
        more = [key for key in figures if key != ("of_matmul" if limits.named else "mfu")]
        print(head(name, unit, more))
        for race in RACES[name](a, device, limits, print):
            for i, row in enumerate(race.rows(a.runs)):
                results.append({"bench": name, **row, "unit": unit})
                print(line(row, "" if i else race.work, more), flush=True)
    memory, seconds = peak_memory(), time.perf_counter() - start
    print(f"\n{seconds:.0f} s in all; this process took {memory / 1e6:,.0f} MB of memory at most\n")
    print(json.dumps({**origin(a, argv), "peak_memory": memory, "results": results}))
    return 0


if __name__ == "__main__":
    run(main)
