"""The full model in NumPy: blocks stacked, forward and backward by hand (model/numpy_gpt).

x = E[ids], a share of the token before mixed in    then for each
block: x = x + attention(norm(x)), x = x + mlp(norm(x))    p = softmax(norm(x) W)

With two blocks, the second can look for what the first has written: at "Tom ... T", the last
position finds the T that came before, and what stood after it (induction heads, Olsson et al.
2022). The shape is that of configs/tiny.yaml, smaller. python -m utils.ladder.gpt_numpy
"""

from collections.abc import Iterator, Sequence

import numpy as np

from model.config import GPTConfig
from model.numpy_gpt import decoder
from tok.cli import run
from utils.ladder import block
from utils.ladder.corpus import Corpus, Result, opened, scaled, write
from utils.ladder.descent import Params, report
from utils.ladder.network import softmax

LAYERS, HEADS, C, T = 2, 4, 64, 64
LR, STEPS, BATCH = 1e-2, 800, 8


def config(V: int) -> GPTConfig:
    """configs/tiny.yaml's shape, smaller: squared ReLU, norms of queries and keys, RoPE."""
    return GPTConfig(
        vocab_size=V, block_size=T, n_layer=LAYERS, n_head=HEADS, d_model=C, bias=False,
        pos="rope", norm="rmsnorm", mlp="relu2", qk_norm=True, zero_init=True, emb_std=0.1,
        emb_conv=2, tie_weights=False,
    )  # fmt: skip


def init(c: GPTConfig, seed: int = 0) -> Params:
    """The block's start, and a random share of the token before."""
    params, rng = block.init(c, seed), np.random.default_rng(seed + 1)
    params["conv"][1:] = rng.normal(0, 0.5, params["conv"][1:].shape)
    return params


def climb(corpus: Corpus, effort: float = 1.0) -> Iterator[Result]:
    """Train, then score."""
    c = config(corpus.V)
    params = init(c)
    for _ in block.train(corpus, c, params, scaled(STEPS, effort), BATCH, LR):
        pass
    yield block.result(corpus, c, params, "GPT in NumPy")


def main(argv: Sequence[str] | None = None) -> None:
    """Print the loss as it falls, and what the model writes."""
    corpus, effort = opened("gpt_numpy", __doc__, argv)
    c = config(corpus.V)
    params = init(c)
    report(block.train(corpus, c, params, scaled(STEPS, effort), BATCH, LR))

    def probs(ids: np.ndarray) -> np.ndarray:
        logits, _ = decoder.forward(params, c, ids[None, -T:])
        return softmax(logits[0, -1].astype(np.float64) / 0.5)  # temperature 0.5: fewer slips

    print("\n" + corpus.decode(write(probs, corpus.val[:T], 300)))
    print(block.result(corpus, c, params, "GPT in NumPy"))


if __name__ == "__main__":
    run(main, threads=1)
