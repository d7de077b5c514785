"""Kill a training again and again, resume it, and compare it with one that was left alone.

python -m utils.chaos chaos --config configs/tiny.yaml --steps 60 --eval_every 10
python -m utils.chaos --kills 9 --moments 3 chaos --data my.txt --dropout 0.1

What follows the name goes to train.py. The runs are NAME-whole and NAME-killed; SIGKILL, which
no program can catch, comes at random moments, every other time while a checkpoint is written.
Exit status 0 if weights, optimizer, random state and the rows of metrics.csv are equal to the
bit, 1 if not. Not with --minutes: there the clock decides.
"""

import argparse
import csv
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tok.cli import Parser, run
from utils.reporting.csv import COLUMNS
from utils.runs import run_dir

TRAIN = Path(__file__).parent.parent / "train.py"
Process = subprocess.Popen[bytes]
CLOCK = ("seconds", "tokens_per_s")  # columns that differ between any two runs
SAME = ("model", "optimizer", "scaler", "rng", "step", "best_val_loss", "best_step")


def start(path: Path, flags: Sequence[str]) -> Process:
    """Start train.py on a run, or go on with it if it has a checkpoint."""
    again = ["--resume"] if (path / "last.pt").exists() else []
    command = [sys.executable, str(TRAIN), *flags, "--run", str(path), *again]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def saving(path: Path, pid: int) -> bool:
    """Whether this process writes a checkpoint, or died in it, where an older one is at stake."""
    return (path / "last.pt").exists() and any(path.glob(f"*.pt.{pid}.tmp"))


def kill_at(process: Process, path: Path, seconds: float, in_save: bool) -> str:
    """SIGKILL a training after so many seconds, or in its next save; says when, "" if it ended."""
    end = time.monotonic() + seconds
    while process.poll() is None:
        if time.monotonic() >= end and (not in_save or saving(path, process.pid)):
            process.kill()
            process.wait()
            return "while it saved" if saving(path, process.pid) else "between two saves"
        time.sleep(0.0005)
    return ""


def equal(a: Any, b: Any) -> bool:
    """Whether two nested states are equal to the bit."""
    import torch

    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def rows(path: Path) -> list[list[str]]:
    """metrics.csv without what the clock says."""
    with open(path / "metrics.csv", encoding="utf-8", newline="") as f:
        return [[row[c] for c in COLUMNS if c not in CLOCK] for row in csv.DictReader(f)]


def differences(a: Path, b: Path) -> list[str]:
    """Name what is not equal in two runs: ["last.pt: model", "metrics.csv"]."""
    from utils.training.checkpoint import load_checkpoint

    found = []
    for name in ("best.pt", "last.pt"):
        one, other = load_checkpoint(a / name), load_checkpoint(b / name)
        found += [f"{name}: {key}" for key in SAME if not equal(one[key], other[key])]
    return found + (["metrics.csv"] if rows(a) != rows(b) else [])


def finish(process: Process) -> None:
    """Wait for a training. ValueError if it fails."""
    if process.wait():
        raise ValueError(f"train.py ended with status {process.returncode}; see what it said")


def main(argv: Sequence[str] | None = None) -> int:
    """Train twice, killing one of them, and compare."""
    p = Parser(prog="python -m utils.chaos", description=__doc__)
    p.add_argument("name", metavar="NAME", help="of the runs, under runs/, or a path")
    p.add_argument("flags", nargs=argparse.REMAINDER, help="settings of train.py")
    p.add_argument("--kills", type=int, default=5, help="how often to kill it (default 5)")
    p.add_argument("--moments", type=int, default=0, help="seed of the moments (default 0)")
    a = p.parse_args(argv)
    rng, base = random.Random(a.moments), run_dir(a.name)
    whole, killed = (base.with_name(f"{base.name}-{end}") for end in ("whole", "killed"))
    for path in (whole, killed):
        if path.exists():
            raise ValueError(f"{path} is there already; delete it, or choose another name")
    began = time.monotonic()
    finish(start(whole, a.flags))
    seconds = time.monotonic() - began
    print(f"{whole}: left alone, done in {seconds:.1f} s", flush=True)
    for i in range(a.kills):
        process, in_save = start(killed, a.flags), i % 2 == 0
        after = 0.0 if in_save else rng.uniform(0, seconds)
        when = kill_at(process, killed, after, in_save)
        print(f"{killed}: " + (f"killed {when}" if when else "done before the kill"), flush=True)
        if not when:
            finish(process)
            break
    finish(start(killed, a.flags))
    found = differences(whole, killed)
    print("not equal: " + ", ".join(found) if found else "equal to the bit")
    return int(bool(found))


if __name__ == "__main__":
    run(main)
