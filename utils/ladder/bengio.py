"""Embedding + MLP (Bengio et al. 2003): characters become vectors, and several are read at once.

x = (E[a], E[b], ..., E[c])    h = tanh(x W1 + b1)    p = softmax(h W2 + b2)

The n characters before the next one are looked up in E (V,C), their vectors laid side by side. A
table of all contexts would have V**n rows, nearly all never seen; here contexts that are alike have
vectors that are alike, and what is learnt of one holds for the other. (The paper's direct lines
from x to the output are left out.) python -m utils.ladder.bengio
"""

from collections.abc import Iterator, Sequence

import numpy as np

from tok.cli import run
from utils.ladder.corpus import Corpus, Result, opened, scaled, write
from utils.ladder.descent import Params, fit, report
from utils.ladder.network import softmax

CONTEXT, C, HIDDEN = 8, 16, 128
LR, STEPS, BATCH = 5e-3, 3000, 256


def init(V: int, seed: int = 0) -> Params:
    """Matrices that keep the size of what they multiply; biases of 0. float32."""
    rng, wide = np.random.default_rng(seed), CONTEXT * C
    shapes = {"E": (V, C), "W1": (wide, HIDDEN), "W2": (HIDDEN, V)}
    scale = {"E": 1.0, "W1": wide**-0.5, "W2": HIDDEN**-0.5}
    params = {name: rng.normal(0, scale[name], shape) for name, shape in shapes.items()}
    params |= {"b1": np.zeros(HIDDEN), "b2": np.zeros(V)}
    return {name: p.astype(np.float32) for name, p in params.items()}


def forward(params: Params, idx: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """idx (N,CONTEXT) -> p (N,V), and x (N,CONTEXT*C) and h (N,HIDDEN) for the way back."""
    x = params["E"][idx].reshape(len(idx), -1)
    h = np.tanh(x @ params["W1"] + params["b1"])
    return softmax(h @ params["W2"] + params["b2"]), x, h


def loss_and_grads(params: Params, idx: np.ndarray, targets: np.ndarray) -> tuple[float, Params]:
    """Cross-entropy (nats) of the last target of each row, (N,CONTEXT) both, and its gradients."""
    p, x, h = forward(params, idx)
    N, y = len(idx), targets[:, -1]
    loss = float(-np.log(p[np.arange(N), y]).mean())
    dlogits = p
    dlogits[np.arange(N), y] -= 1
    dlogits /= N
    da = dlogits @ params["W2"].T * (1 - h * h)  # tanh' = 1 - tanh^2
    dx = da @ params["W1"].T
    dE = np.zeros_like(params["E"])
    np.add.at(dE, idx, dx.reshape(*idx.shape, -1))  # a character may stand twice in a row
    grads = {"E": dE, "W1": x.T @ da, "b1": da.sum(0), "W2": h.T @ dlogits, "b2": dlogits.sum(0)}
    return loss, grads


def train(corpus: Corpus, params: Params, effort: float) -> Iterator[float]:
    """Move params; yield the loss of each step."""
    steps = scaled(STEPS, effort)
    return fit(params, loss_and_grads, corpus.train, steps, length=CONTEXT, batch=BATCH, lr=LR)


def score(corpus: Corpus, params: Params) -> float:
    """Bits per byte of the held-out text."""
    rows = np.lib.stride_tricks.sliding_window_view(corpus.after(CONTEXT), CONTEXT + 1)
    nats = 0.0
    for part in np.array_split(rows, 1 + len(rows) // 4096):
        p, _, _ = forward(params, part[:, :-1])
        nats -= float(np.log(p[np.arange(len(part)), part[:, -1]]).sum(dtype=np.float64))
    return corpus.bits_per_byte(nats)


def result(corpus: Corpus, params: Params) -> Result:
    """The row of the table."""
    n = sum(p.size for p in params.values())
    sees = f"the last {CONTEXT} characters"
    return Result("embedding + MLP (Bengio)", sees, n, score(corpus, params))


def climb(corpus: Corpus, effort: float = 1.0) -> Iterator[Result]:
    """Train, then score."""
    params = init(corpus.V)
    for _ in train(corpus, params, effort):
        pass
    yield result(corpus, params)


def neighbours(corpus: Corpus, params: Params, character: str) -> str:
    """The five characters whose vectors are nearest to a character's, nearest first (cosine)."""
    E = params["E"] / np.linalg.norm(params["E"], axis=1, keepdims=True)
    near = (E @ E[corpus.encode(character)[0]]).argsort()[::-1][1:6]
    return " ".join(map(repr, corpus.decode(near)))


def main(argv: Sequence[str] | None = None) -> None:
    """Print the loss as it falls, which characters became alike, and what the model writes."""
    corpus, effort = opened("bengio", __doc__, argv)
    params = init(corpus.V)
    report(train(corpus, params, effort))
    for character in "aT.":
        print(f"nearest to {character!r}: {neighbours(corpus, params, character)}")

    def probs(ids: np.ndarray) -> np.ndarray:
        p = forward(params, ids[None, -CONTEXT:])[0][0].astype(np.float64)
        return p / p.sum()

    print("\n" + corpus.decode(write(probs, corpus.val[:CONTEXT], 200)))
    print(result(corpus, params))


if __name__ == "__main__":
    run(main, threads=1)
