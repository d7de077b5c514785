"""Attention without positions: a bag of characters, and what the lost order costs in bits.

x = E[ids] (+ P)    y = x + attention(x) Wo    p = softmax(y W)

The last position sums over a set: softmax(q k^T / sqrt(D)) v has the same terms in whatever order
the keys and values come. So the context may be shuffled, and the last output stays as it was.
Adding a vector for each position to x, P (T,C), breaks the tie. python -m utils.ladder.bag
"""

from collections.abc import Iterator, Sequence

import numpy as np

from model.numpy_gpt import layers as nn
from model.numpy_gpt.attention import (
    attention,
    attention_backward,
    causal_mask,
    join_heads,
    split_heads,
)
from tok.cli import run
from utils.ladder.corpus import Corpus, Result, opened, scaled
from utils.ladder.descent import Params, fit, held_out_nats, report

T, C, HEADS = 32, 64, 4
LR, STEPS, BATCH = 2e-2, 300, 32
Cache = tuple


def init(V: int, positions: bool, seed: int = 0) -> Params:
    """Matrices that keep the size of what they multiply, float32; P only with positions."""
    rng = np.random.default_rng(seed)
    shapes = {"E": (V, C), "P": (T, C), "qkv": (3 * C, C), "proj": (C, C), "head": (V, C)}
    scale = {"E": 1.0, "P": 0.3}
    params = {n: rng.normal(0, scale.get(n, C**-0.5), shape) for n, shape in shapes.items()}
    if not positions:
        del params["P"]
    return {name: p.astype(np.float32) for name, p in params.items()}


def forward(params: Params, idx: np.ndarray) -> tuple[np.ndarray, Cache]:
    """Logits (B,T,V) of ids (B,T), and what the way back needs."""
    x, looked_up = nn.embedding(idx, params["E"])
    if "P" in params:
        x = x + params["P"][: idx.shape[1]]
    qkv, into = nn.linear(x, params["qkv"])
    q, k, v = np.split(split_heads(qkv, C // HEADS), 3, 1)  # (B,H,T,D) each
    mixed, core = attention(q, k, v, causal_mask(idx.shape[1]))
    y, out = nn.linear(join_heads(mixed), params["proj"])
    logits, head = nn.linear(x + y, params["head"])
    return logits, (looked_up, into, core, out, head)


def loss_and_grads(params: Params, idx: np.ndarray, targets: np.ndarray) -> tuple[float, Params]:
    """Cross-entropy (nats) of targets (B,T) after idx (B,T), and its gradients: forward's lines,
    from the last to the first."""
    logits, (looked_up, into, core, out, head) = forward(params, idx)
    loss, picked = nn.cross_entropy(logits, targets)
    grads: Params = {}
    dy, grads["head"], _ = nn.linear_backward(nn.cross_entropy_backward(picked), head)
    dmixed, grads["proj"], _ = nn.linear_backward(dy, out)
    dqkv = np.concatenate(attention_backward(split_heads(dmixed, C // HEADS), core), 1)
    dx, grads["qkv"], _ = nn.linear_backward(join_heads(dqkv), into)
    dx = dx + dy  # x went two ways: through attention, and past it
    if "P" in params:
        grads["P"] = np.zeros_like(params["P"])
        grads["P"][: idx.shape[1]] = dx.sum(0)
    grads["E"] = nn.embedding_backward(dx, looked_up)
    return loss, grads


def train(corpus: Corpus, params: Params, effort: float) -> Iterator[float]:
    """Move params; yield the loss of each step."""
    steps = scaled(STEPS, effort)
    return fit(params, loss_and_grads, corpus.train, steps, length=T, batch=BATCH, lr=LR)


def result(corpus: Corpus, params: Params) -> Result:
    """The row of the table."""
    n = sum(p.size for p in params.values())
    nats = held_out_nats(lambda idx: forward(params, idx)[0], corpus.after(T), T)
    bits = corpus.bits_per_byte(nats)
    if "P" in params:
        return Result("attention + positions", f"the last {T} characters", n, bits)
    return Result("attention alone", f"{T} characters, unordered", n, bits)


def climb(corpus: Corpus, effort: float = 1.0) -> Iterator[Result]:
    """Without positions, then with: nothing else differs."""
    for positions in (False, True):
        params = init(corpus.V, positions)
        for _ in train(corpus, params, effort):
            pass
        yield result(corpus, params)


def moved(params: Params, idx: np.ndarray, seed: int = 0) -> float:
    """How far the last logits of idx (T,) move, at most, when all ids before it are shuffled."""
    shuffled = np.append(np.random.default_rng(seed).permutation(idx[:-1]), idx[-1])
    before, after = forward(params, np.stack((idx, shuffled)))[0][:, -1].astype(np.float64)
    return float(np.abs(after - before).max())


def main(argv: Sequence[str] | None = None) -> None:
    """Print what shuffling the context changes, and what the order is worth."""
    corpus, effort = opened("bag", __doc__, argv)
    rows = []
    for positions in (False, True):
        print(f"\n{'with' if positions else 'without'} positions")
        params = init(corpus.V, positions)
        report(train(corpus, params, effort))
        print(f"shuffle the context: the last logits move by {moved(params, corpus.val[:T]):.1e}")
        rows.append(result(corpus, params))
    print("", *rows, sep="\n")
    print(f"order is worth {rows[0].bits_per_byte - rows[1].bits_per_byte:.3f} bits per byte")


if __name__ == "__main__":
    run(main, threads=1)
