"""Train a GPT with nothing but NumPy, and let it write.

    python -m model.numpy_gpt --steps 200

The loop is in model/numpy_gpt/train.py.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from model.config import GPTConfig

TEXT = Path(__file__).parents[2] / "data" / "tiny.txt"


def checked(parser: argparse.ArgumentParser, a: argparse.Namespace) -> str:
    """The text to learn from; for flags that can't be, one line on stderr and status 2."""
    if min(a.steps, a.seed) < 0:
        flag = "steps" if a.steps < 0 else "seed"
        parser.error(f"--{flag} {getattr(a, flag)} must be 0 or more")
    if not 0 < a.lr < math.inf:
        parser.error(f"--lr {a.lr:g} must be a positive number; 3e-3 is usual")
    try:
        text: str = a.text.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        parser.error(f"cannot read {a.text}: {e}")
    if len(text) < 66:
        parser.error(f"{a.text} has {len(text)} characters; give 66 or more")
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Train and write."""
    parser = argparse.ArgumentParser(
        prog="python -m model.numpy_gpt",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--steps", type=int, default=200, help="train for so many (200)")
    parser.add_argument("--text", type=Path, default=TEXT, help="a text file (data/tiny.txt)")
    parser.add_argument("--lr", type=float, default=3e-3, help="learning rate (3e-3)")
    parser.add_argument("--seed", type=int, default=1337, help="of weights, batches, text (1337)")
    a = parser.parse_args(argv)
    text = checked(parser, a)
    import numpy as np  # here: its number of threads is set below, before it is loaded

    from model.numpy_gpt.train import start, train, write

    letters = sorted(set(text))
    known = {ch: i for i, ch in enumerate(letters)}
    ids = np.array([known[ch] for ch in text])
    c = GPTConfig(len(letters), 64, 2, 4, 64, bias=False, pos="rope", norm="rmsnorm", mlp="relu2")
    rng = np.random.default_rng(a.seed)
    P = start(c, rng)
    print(f"{sum(p.size for p in P.values()):,} parameters, {len(letters)} characters")
    began = time.perf_counter()
    for step, loss in enumerate(train(P, c, ids, a.steps, a.lr, rng), 1):
        if not math.isfinite(loss):
            parser.error(f"the loss is {loss} at step {step}; try a smaller --lr than {a.lr:g}")
        if step % 20 == 0 or step == 1:
            print(f"step {step:4d}  loss {loss:.4f}  {time.perf_counter() - began:.1f} s")
    print("\n" + "".join(letters[i] for i in write(P, c, [known[text[0]]], 300, rng)))
    return 0


def run() -> int:
    """`main`'s status; 130 after Ctrl-C, and 141 if `... | head` has read enough."""
    try:
        status = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the exit flushes once more
        return 141
    return status


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # at this size a second thread costs time
    raise SystemExit(run())
