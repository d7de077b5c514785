"""A network of two layers in NumPy: forward, backward by hand, gradient descent.

h = max(0, x W1 + b1)    p = softmax(h W2 + b2)    loss = mean of -ln p[y]

x (N,V) is one-hot: row n has a 1 at the last character. y (N,) is the next. Backward, the chain
rule from the end: d loss / d logits = (p - onehot(y)) / N, then through each line once more.
python -m utils.ladder.network
"""

from collections.abc import Iterator, Sequence

import numpy as np

from tok.cli import run
from utils.ladder.corpus import Corpus, Result, opened, scaled

HIDDEN, LR, STEPS, BATCH = 32, 1.0, 2000, 512
Params = dict[str, np.ndarray]


def init(V: int, seed: int = 0) -> Params:
    """Small random matrices, V -> HIDDEN -> V, and biases of 0."""
    rng = np.random.default_rng(seed)
    W1, W2 = rng.normal(0, 1, (V, HIDDEN)), rng.normal(0, HIDDEN**-0.5, (HIDDEN, V))
    return {"W1": W1, "b1": np.zeros(HIDDEN), "W2": W2, "b2": np.zeros(V)}


def softmax(z: np.ndarray) -> np.ndarray:
    """Numbers -> probabilities, row by row. The largest is taken off first: no overflow."""
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def forward(params: Params, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the next id and the hidden layer: x (N,V) -> p (N,V), h (N,HIDDEN)."""
    h = np.maximum(0, x @ params["W1"] + params["b1"])
    return softmax(h @ params["W2"] + params["b2"]), h


def loss_and_grads(params: Params, x: np.ndarray, y: np.ndarray) -> tuple[float, Params]:
    """Cross-entropy (nats, mean over N) and its gradient for each parameter."""
    p, h = forward(params, x)
    N = len(y)
    dlogits = p.copy()
    dlogits[np.arange(N), y] -= 1
    dlogits /= N
    dh = dlogits @ params["W2"].T  # (N,HIDDEN)
    dh[h <= 0] = 0  # ReLU passes on what it let through
    grads = {"W1": x.T @ dh, "b1": dh.sum(0), "W2": h.T @ dlogits, "b2": dlogits.sum(0)}
    return float(-np.log(p[np.arange(N), y]).mean()), grads


def train(corpus: Corpus, steps: int, seed: int = 0) -> Iterator[tuple[float, Params]]:
    """Descend: each step yields the loss of its batch, and the parameters after it."""
    params, eye = init(corpus.V, seed), np.eye(corpus.V)
    rng, ids = np.random.default_rng(seed), corpus.train
    for step in range(steps):
        at = rng.integers(len(ids) - 1, size=BATCH)
        loss, grads = loss_and_grads(params, eye[ids[at]], ids[at + 1])
        for name in params:
            params[name] -= LR * (1 - step / steps) * grads[name]
        yield loss, params


def score(corpus: Corpus, params: Params) -> float:
    """Bits per byte of the held-out text."""
    p, _ = forward(params, np.eye(corpus.V))  # after each of the V characters
    ids = corpus.after(1)
    return corpus.bits_per_byte(float(-np.log(p[ids[:-1], ids[1:]]).sum()))


def result(corpus: Corpus, params: Params) -> Result:
    """The row of the table."""
    n = sum(p.size for p in params.values())
    return Result("network of 2 layers", "the last character", n, score(corpus, params))


def climb(corpus: Corpus, effort: float = 1.0) -> Iterator[Result]:
    """Train, then score."""
    *_, (_, params) = train(corpus, scaled(STEPS, effort))
    yield result(corpus, params)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the loss as it falls."""
    corpus, effort = opened("network", __doc__, argv)
    steps = scaled(STEPS, effort)
    for step, (loss, params) in enumerate(train(corpus, steps)):  # noqa: B007
        if step % max(1, steps // 8) == 0:
            print(f"step {step:>5}  loss {loss:.3f} nats")
    print(result(corpus, params))


if __name__ == "__main__":
    run(main, threads=1)
