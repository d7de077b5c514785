"""One block of a Transformer: attention moves figures between positions, an MLP thinks at each.

x = E[ids]    x = x + attention(norm(x))    x = x + mlp(norm(x))    p = softmax(norm(x) W)

What a sublayer finds is added to the residual stream x, so that nothing is lost on the way up and
gradients have a straight way down. The norm keeps what a sublayer reads in size. Positions by
RoPE: queries and keys are rotated. python -m utils.ladder.block
"""

from collections.abc import Iterator, Sequence

import numpy as np

from model.config import GPTConfig
from model.numpy_gpt import decoder
from model.numpy_gpt.params import shapes
from tok.cli import run
from utils.ladder.corpus import Corpus, Result, opened, scaled
from utils.ladder.descent import Params, fit, held_out_nats, report

T, C, HEADS = 32, 64, 4
LR, STEPS, BATCH = 2e-2, 300, 32


def config(V: int) -> GPTConfig:
    """The shape of the model, in words of `model.config`."""
    return GPTConfig(
        vocab_size=V, block_size=T, n_layer=1, n_head=HEADS, d_model=C, bias=False,
        pos="rope", norm="rmsnorm", mlp="relu", tie_weights=False,
    )  # fmt: skip


def init(c: GPTConfig, seed: int = 0) -> Params:
    """Parameters by TinyGPT's names, float32; 0 where a sublayer ends, so it begins by adding 0."""
    rng, params = np.random.default_rng(seed), {}
    for name, shape in shapes(c).items():
        ends = name.endswith(("proj.weight", "down.weight"))
        std = 0 if ends else 1 if name == "tok_emb.weight" else c.d_model**-0.5
        matrix = name != "conv" and len(shape) == 2
        values = rng.normal(0, std, shape) if matrix else np.ones(shape)  # gains start at 1
        params[name] = values.astype(np.float32)
    return params


def train(
    corpus: Corpus, c: GPTConfig, params: Params, steps: int, batch: int = BATCH, lr: float = LR
) -> Iterator[float]:
    """Move params; yield the loss of each step."""

    def grads(P: Params, idx: np.ndarray, y: np.ndarray) -> tuple[float, Params]:
        return decoder.loss_and_gradients(P, c, idx, y)

    return fit(params, grads, corpus.train, steps, length=c.block_size, batch=batch, lr=lr)


def result(corpus: Corpus, c: GPTConfig, params: Params, name: str = "one block") -> Result:
    """The row of the table."""
    T, n = c.block_size, sum(p.size for p in params.values())
    nats = held_out_nats(lambda idx: decoder.forward(params, c, idx)[0], corpus.after(T), T)
    bits = corpus.bits_per_byte(nats)
    return Result(name, f"the last {T} characters", n, bits)


def climb(corpus: Corpus, effort: float = 1.0) -> Iterator[Result]:
    """Train, then score."""
    c = config(corpus.V)
    params = init(c)
    for _ in train(corpus, c, params, scaled(STEPS, effort)):
        pass
    yield result(corpus, c, params)


def sizes(params: Params, c: GPTConfig, idx: np.ndarray) -> dict[str, float]:
    """The usual size (root mean square) of what enters the stream, idx (B,T), and of each sum."""
    x, _ = decoder.embed(idx, params, c)
    found = {"embedding": x}
    for i, (name, sublayer) in enumerate((("attn", decoder.multi_head), ("mlp", decoder.mlp))):
        h, _ = decoder.norm(x, params, f"blocks.0.norm{i + 1}", c)
        found[name], _ = sublayer(h, params, f"blocks.0.{name}", c)
        x = x + found[name]
    return {name: float(np.sqrt((y * y).mean())) for name, y in found.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Print where the parameters are, the loss as it falls, and what each sublayer adds."""
    corpus, effort = opened("block", __doc__, argv)
    c = config(corpus.V)
    params = init(c)
    print(f"attention 4 C^2 = {4 * C * C:,}   MLP 8 C^2 = {8 * C * C:,}   C = {C}")
    print(f"embedding and head 2 V C = {2 * corpus.V * C:,}   norms 3 C = {3 * C}")
    report(train(corpus, c, params, scaled(STEPS, effort)))
    idx = corpus.val[None, :T]
    print("in the stream:", "  ".join(f"{k} {v:.2f}" for k, v in sizes(params, c, idx).items()))
    print(result(corpus, c, params))


if __name__ == "__main__":
    run(main, threads=1)
