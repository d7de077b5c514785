"""Lessons about numbers inside the model: dead units, residual stream, post-norm, tied head."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from data.loader import Batch, batch_at
from model import TinyGPT
from utils.failures.lab import FASTER, SEED, Text, blocks, build, train
from utils.failures.outcome import Outcome, Panel, both, said
from utils.failures.steps import last, losses
from utils.training.objective import next_token

DEAD = -1.0  # a bias from which no input of this size lifts a unit above 0
GELU = "GELU, biases at -1"


def probe(model: TinyGPT, text: Text) -> Batch:
    """A batch to look at the model with, the same at each call."""
    T = model.config.block_size
    return batch_at(text.val, 0, block_size=T, batch_size=32, seed=SEED)


@torch.no_grad()
def outputs(model: TinyGPT, layers: Sequence[nn.Module], text: Text) -> list[Tensor]:
    """What each of these layers gives for the probe's batch, (B,T,...)."""
    seen: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda m, args, y: seen.append(y)) for layer in layers]
    model(probe(model, text)[0])
    for hook in hooks:
        hook.remove()
    return seen


def dead_share(model: TinyGPT, text: Text) -> float:
    """The share of all hidden units that are above 0 nowhere in the probe's batch."""
    hidden = outputs(model, [block.mlp.up for block in blocks(model)], text)
    alive = [(h > 0).flatten(0, 1).any(0).float().mean() for h in hidden]
    return 1 - float(torch.stack(alive).mean())


@torch.no_grad()
def bias_down(model: TinyGPT) -> TinyGPT:
    """Put the biases of all hidden units where a step that is too long might throw them."""
    for block in blocks(model):
        block.mlp.up.bias.fill_(DEAD)
    return model


def dead_relu(text: Text, steps: int) -> Outcome:
    """Broken: ReLU units whose biases start at -1. Mended: at 0. Beside them GELU, at -1."""
    relu = partial(build, text, mlp="relu")
    models = {"broken": bias_down(relu()), "mended": relu(), GELU: bias_down(build(text))}
    shares: dict[str, dict[int, float]] = {name: {} for name in models}

    def watch(step: int, name: str) -> None:
        if step % max(1, steps // 10) == 0 or step == steps - 1:
            shares[name][step] = dead_share(models[name], text)

    runs = {k: train(m, text, steps, watch=partial(watch, name=k)) for k, m in models.items()}
    ends = both(lambda share: share[steps - 1], shares)
    notes = [f"loss of the last 20 steps: {said(both(last, runs))}"]
    panels = [Panel("share of dead units", "step", shares), losses(runs)]
    return Outcome("share of hidden units that are never above 0", ends, 0.5, panels, notes)


@torch.no_grad()
def unscale(model: TinyGPT) -> TinyGPT:
    """Undo the division of the output projections by sqrt(2 n_layer)."""
    for block in blocks(model):
        for weight in (block.attn.proj.weight, block.mlp.down.weight):
            weight.mul_(math.sqrt(2 * model.config.n_layer))
    return model


def stream_sizes(model: TinyGPT, text: Text) -> list[float]:
    """Spread of the residual stream after each block, in units of the embedding's."""
    return [float(x.std()) / model.config.emb_std for x in outputs(model, blocks(model), text)]


def no_residual_scaling(text: Text, steps: int) -> Outcome:
    """Broken: the output projections of 24 layers start at N(0, 0.02). Mended: over sqrt(48)."""
    deep = partial(build, text, n_layer=24, d_model=32, block_size=32)
    models = {"broken": unscale(deep()), "mended": deep()}
    sizes = both(lambda model: stream_sizes(model, text), models)
    runs = both(lambda model: train(model, text, steps), models)
    notes = [f"loss of the last 20 steps: {said(both(last, runs))}"]
    panels = [Panel("size of the residual stream at first", "block", sizes), losses(runs)]
    quantity = "residual stream after 24 blocks over the embedding"
    return Outcome(quantity, both(lambda size: size[-1], sizes), 2.0, panels, notes)


def gradient_by_block(model: TinyGPT, text: Text) -> list[float]:
    """Length of the gradient in each block's parameters."""
    nats, count = next_token(model, probe(model, text))
    (nats / count).backward()
    grads = [[p.grad for p in block.parameters() if p.grad is not None] for block in blocks(model)]
    norms = [float(nn.utils.get_total_norm(of_block)) for of_block in grads]
    model.zero_grad(set_to_none=True)
    return norms


def post_norm(text: Text, steps: int) -> Outcome:
    """Broken: 6 layers, lr 0.01 after a warmup, the norm after each sum. Mended: before."""
    optim = replace(FASTER, warmup=steps * 3 // 10)
    deep = partial(build, text, n_layer=6)
    models = both(lambda at: deep(norm_at=at), {"broken": "post", "mended": "pre"})
    wide = deep(norm_at="post", emb_std=1.0, tie_weights=False)
    norms = both(lambda model: gradient_by_block(model, text), models)
    runs = both(lambda model: train(model, text, steps, optim=optim), models)
    ratios = both(lambda norm: norm[0] / norm[-1], {**norms, "post": gradient_by_block(wide, text)})
    notes = [
        f"after the sum with an embedding from N(0, 1) that is not tied: {ratios.pop('post'):.3f}",
        f"loss of the last 20 steps: {said(both(last, runs))}",
        f"frequencies of single characters alone: {text.unigram:.3f}",
    ]
    panels = [Panel("first gradient's norm", "block", norms, log=True), losses(runs)]
    return Outcome("first block's gradient over the last's", ratios, 5.0, panels, notes)


def tied_head(text: Text, steps: int) -> Outcome:
    """Broken: a tied embedding from N(0, 1), as nn.Embedding has it. Mended: N(0, 0.02)."""
    models = both(lambda std: build(text, emb_std=std), {"broken": 1.0, "mended": 0.02})
    runs = both(lambda model: train(model, text, steps), models)
    above = both(lambda h: h.losses[0] - math.log(text.V), runs)
    notes = [
        f"first loss: {said(both(lambda h: h.losses[0], runs))}; ln V = {math.log(text.V):.3f}",
        f"loss of the last 20 steps: {said(both(last, runs))}",
    ]
    return Outcome("first loss above ln V", above, 1.0, [replace(losses(runs), log=True)], notes)
