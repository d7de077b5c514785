"""The full model in PyTorch: TinyGPT, gradients by autograd, the recipe of `make train`.

The equations are those of the rung in NumPy, and so is the loss of the same weights. No backward is
written by hand, so that what is tried costs a line: here Muon instead of AdamW. First on
characters, then on byte pairs, which stand for several: a window reaches as much farther back, and
as many steps read as much more text. python -m utils.ladder.gpt_torch
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from model.numpy_gpt import decoder
from model.numpy_gpt.layers import cross_entropy
from model.numpy_gpt.params import from_torch
from tok.bpe import BPETokenizer
from tok.cli import run
from utils.config import OptimConfig
from utils.ladder.corpus import Corpus, Result, opened, scaled, scored_windows
from utils.ladder.descent import held_out_nats
from utils.ladder.gpt_numpy import T, config

if TYPE_CHECKING:  # torch takes a second or two: it is imported where it is needed
    from model import TinyGPT

STEPS, BATCH, LR, VOCAB = 350, 16, 0.02, 1000


def build(V: int) -> "TinyGPT":
    """A TinyGPT of the shape that the rung in NumPy has."""
    import torch

    from model import TinyGPT

    torch.manual_seed(0)
    return TinyGPT(config(V))


def train(model: "TinyGPT", ids: np.ndarray, steps: int, seed: int = 0) -> Iterator[float]:
    """Move the model's parameters; yield each step's loss (nats)."""
    import torch

    from utils.training.optim import lr_at, make_optimizer, muon_groups

    config = OptimConfig(
        optimizer="muon", lr=LR, min_lr=0, momentum=0.85, warmup=0, schedule="trapezoid",
        cooldown=0.8,
    )  # fmt: skip
    optimizer = make_optimizer(model.parameters(), config, matrices=muon_groups(model))
    rng = np.random.default_rng(seed)
    windows = np.lib.stride_tricks.sliding_window_view(ids, T + 1)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, steps, config)
        rows = torch.tensor(windows[rng.integers(len(windows), size=BATCH)])
        _, loss = model(rows[:, :-1], rows[:, 1:], loss_only=True)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        yield loss.item()


def byte_pairs(corpus: Corpus) -> BPETokenizer:
    """A tokenizer learnt from the training text."""
    return BPETokenizer.train([corpus.train_text], VOCAB, special_tokens=())


def learn(
    corpus: Corpus, tokenizer: BPETokenizer | None, effort: float
) -> tuple["TinyGPT", Result]:
    """A model trained on characters, or on a tokenizer's ids, and its score."""
    import torch

    what, V, learnt, held = "characters", corpus.V, corpus.train, corpus.val
    if tokenizer:
        what, V = "byte pairs", tokenizer.vocab_size
        learnt, held = (np.array(tokenizer.encode(t)) for t in (corpus.train_text, corpus.val_text))
    if len(learnt) <= T:
        raise ValueError(f"{len(learnt)} {what} to learn from; give a longer text")
    model = build(V)
    for _ in train(model, learnt, scaled(STEPS, effort)):
        pass
    with torch.no_grad():
        ids = np.concatenate((learnt[-T:], held))
        nats = held_out_nats(lambda idx: model(torch.tensor(idx))[0].numpy(), ids, T)
    bits = corpus.bits_per_byte(nats, spelt=tokenizer is not None)
    return model, Result(f"TinyGPT, {what}", f"the last {T} {what}", model.n_params(), bits)


def climb(corpus: Corpus, effort: float = 1.0) -> Iterator[Result]:
    """Characters, then byte pairs: the same model, as many steps."""
    for tokenizer in (None, byte_pairs(corpus)):
        yield learn(corpus, tokenizer, effort)[1]


def same_loss(model: "TinyGPT", corpus: Corpus) -> tuple[float, float]:
    """The mean loss (nats) of 32 held-out windows by these weights: in PyTorch, and in NumPy."""
    import torch

    rows = scored_windows(corpus.after(T), T)[0][:32]
    x, y = rows[:, :-1], rows[:, 1:]
    with torch.no_grad():
        _, loss = model(torch.tensor(x), torch.tensor(y))
    params = from_torch(model.state_dict(), model.config, np.float32)
    return loss.item(), cross_entropy(decoder.forward(params, model.config, x)[0], y)[0]


def main(argv: Sequence[str] | None = None) -> None:
    """Print what both reach, that NumPy agrees, and what the second writes."""
    import torch

    from model import generate

    corpus, effort = opened("gpt_torch", __doc__, argv)
    model, result = learn(corpus, None, effort)
    print(
        "the same weights: {:.6f} nats in PyTorch, {:.6f} in NumPy".format(
            *same_loss(model, corpus)
        )
    )
    print(result)
    tokenizer, start = byte_pairs(corpus), corpus.val_text[:20]
    model, result = learn(corpus, tokenizer, effort)
    print(result)
    idx = torch.tensor([tokenizer.encode(start)])
    ids = [int(row[0]) for row in generate(model, idx, 150, temperature=0.5, seed=0)]
    print(f"\nIt writes on from {start!r}:\n{tokenizer.decode(ids)}")


if __name__ == "__main__":
    run(main, threads=1)
