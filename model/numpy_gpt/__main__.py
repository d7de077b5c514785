"""Train a GPT with nothing but NumPy, and let it write.

    python -m model.numpy_gpt --steps 200

The loop of train.py in a page: windows of a text, loss, gradients, clipping, AdamW.
"""

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model.config import GPTConfig
from model.numpy_gpt.decoder import forward, loss_and_gradients
from model.numpy_gpt.layers import Array, softmax
from model.numpy_gpt.optim import State, adamw, clip
from model.numpy_gpt.params import Params, shapes

TEXT = Path(__file__).parents[2] / "data" / "tiny.txt"


def start(c: GPTConfig, rng: np.random.Generator) -> Params:
    """GPT-2's start: N(0, 0.02), gains 1, output projections / sqrt(2 n_layer). No biases here."""
    P = {name: np.ones(shape, np.float32) for name, shape in shapes(c).items()}
    for name in P:
        if P[name].ndim == 2:
            std = 0.02 / math.sqrt(2 * c.n_layer) if "proj" in name or "down" in name else 0.02
            P[name] = rng.normal(0, std, P[name].shape).astype(np.float32)
    return P


def windows(ids: Array, T: int, B: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """B windows of T ids from anywhere, and the same one position on: (B,T) each."""
    starts = rng.integers(0, len(ids) - T, B)
    rows = np.stack([ids[s : s + T + 1] for s in starts])
    return rows[:, :-1], rows[:, 1:]


def write(P: Params, c: GPTConfig, ids: list[int], n: int, rng: np.random.Generator) -> list[int]:
    """Draw n more ids, each from softmax(logits / 0.8), reading the last block_size anew."""
    for _ in range(n):
        logits, _ = forward(P, c, np.array([ids[-c.block_size :]]))
        p = softmax(logits[0, -1].astype(np.float64) / 0.8)
        ids.append(int(rng.choice(len(p), p=p)))
    return ids


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
    if min(a.steps, a.seed) < 0:
        flag = "steps" if a.steps < 0 else "seed"
        parser.error(f"--{flag} {getattr(a, flag)} must be 0 or more")
    if not 0 < a.lr < math.inf:
        parser.error(f"--lr {a.lr:g} must be a positive number; 3e-3 is usual")
    try:
        text = a.text.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        parser.error(f"cannot read {a.text}: {e}")
    if len(text) < 66:
        parser.error(f"{a.text} has {len(text)} characters; give 66 or more")
    letters = sorted(set(text))
    known = {ch: i for i, ch in enumerate(letters)}
    ids = np.array([known[ch] for ch in text])
    c = GPTConfig(len(letters), 64, 2, 4, 64, bias=False, pos="rope", norm="rmsnorm", mlp="relu2")
    rng = np.random.default_rng(a.seed)
    P, state = start(c, rng), State()
    print(f"{sum(p.size for p in P.values()):,} parameters, {len(letters)} characters")
    began = time.perf_counter()
    for step in range(1, a.steps + 1):
        x, y = windows(ids, c.block_size, 12, rng)
        loss, G = loss_and_gradients(P, c, x, y)
        if not math.isfinite(loss):
            parser.error(f"the loss is {loss} at step {step}; try a smaller --lr than {a.lr:g}")
        clip(G, 1.0)
        lr = a.lr * min(1, step / 10, 1.05 - step / a.steps)
        adamw(P, G, state, step, lr=lr)
        if step % 20 == 0 or step == 1:
            print(f"step {step:4d}  loss {loss:.4f}  {time.perf_counter() - began:.1f} s")
    begin = [known[ch] for ch in text[:1]]
    print("\n" + "".join(letters[i] for i in write(P, c, begin, 300, rng)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
