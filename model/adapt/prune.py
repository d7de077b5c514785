"""Pruning: weights that count least become 0; or heads, MLP channels, blocks that do are taken out.

Each function gives a new model, which shares what is unchanged with the one that it was given;
that one stays as it is. Letters: N outputs, K inputs of a layer, T tokens, C = d_model, F hidden.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.adapt.gptq import DAMP, linears, read, walk
from model.config import GPTConfig
from model.gpt import Block, TinyGPT

Keep = Callable[[Tensor], Tensor]  # scores (N,K) -> which weights stay, bool
MULTIPLE = 32  # of MLP channels: what integers in groups, and their kernels, ask for


def kept_share(score: Tensor, sparsity: float) -> Tensor:
    """All but the round(sparsity K) lowest of each row: [[3, 1, 2, 4]], 0.5 -> [[1, 0, 0, 1]]."""
    lowest = score.argsort(dim=1, stable=True)[:, : round(sparsity * score.size(1))]
    return torch.ones_like(score, dtype=torch.bool).scatter_(1, lowest, False)


def kept_2_of_4(score: Tensor) -> Tensor:
    """The two highest of every four neighbours in a row: [[3, 1, 2, 4]] -> [[1, 0, 0, 1]]."""
    if score.size(1) % 4:
        raise ValueError(f"2:4 needs rows of a multiple of 4 weights, not {score.size(1)}")
    return kept_share(score.unflatten(1, (-1, 4)).flatten(0, 1), 0.5).view_as(score)


def wanda_score(w: Tensor, H: Tensor) -> Tensor:
    """|w_ij| times the norm of input j over the text (Wanda, Sun et al. 2023, eq. 1)."""
    return w.abs() * H.diagonal().sqrt()


def rebuilt(model: TinyGPT, config: GPTConfig, state: dict[str, Tensor]) -> TinyGPT:
    """A model whose parameters are the tensors of a state dict."""
    with torch.device("meta"):
        new = type(model)(config)
    new.load_state_dict(state, assign=True)
    if config.tie_weights:
        new.head.weight = new.tok_emb.weight
    return new.train(model.training)


@torch.no_grad()
def sparse(model: TinyGPT, keep: Keep, ids: Tensor | None = None) -> TinyGPT:
    """Zeros in the blocks' matrices, by magnitude; with calibration text ids (B,T), by Wanda.

    Then each block is scored by what it reads after those before it have been pruned.
    """
    state = dict(model.state_dict())

    def pruned(name: str, score: Tensor) -> Tensor:
        state[name] = state[name] * keep(score)
        return state[name]

    if ids is None:
        for i, block in enumerate(model.blocks):
            for name, layer in linears(block).items():
                pruned(f"blocks.{i}.{name}.weight", layer.weight.abs())
        return rebuilt(model, model.config, state)

    def change(block: Block, H: dict[str, Tensor]) -> nn.Module:
        own, i = copy.deepcopy(block), next(count)
        for name, layer in linears(own).items():
            score = wanda_score(layer.weight, H[name])
            layer.weight.copy_(pruned(f"blocks.{i}.{name}.weight", score))
        return own

    count = iter(range(len(model.blocks)))
    for _ in walk(model, ids, change):
        pass
    return rebuilt(model, model.config, state)


def importance(w: Tensor, H: Tensor, parts: int) -> Tensor:
    """How much each of equal parts p of a layer's inputs adds to its outputs: tr(W_p H_p W_p^T).

    w (N,K), H (K,K) -> (parts,): the squared norm of W_p x_p, summed over what gave H.
    """
    W = w.float().unflatten(1, (parts, -1))  # (N,parts,n)
    own = H.view(parts, W.size(2), parts, W.size(2)).diagonal(dim1=0, dim2=2)  # (n,n,parts)
    return torch.einsum("api,ijp,apj->p", W, own, W)


def refitted(w: Tensor, H: Tensor, kept: Tensor) -> Tensor:
    """The weights (N,k) of the inputs `kept` that come nearest to w x of all: least squares.

    W' = (W H_:k + d W_k) (H_kk + d)^-1 with damping d, so that what stays makes up for what goes.
    """
    H, w64 = H.double(), w.double()
    damp = DAMP * H.diagonal().mean()  # holds W' to W, where inputs hardly occur
    own = H[kept][:, kept] + damp * torch.eye(len(kept), dtype=H.dtype)
    target = w64 @ H[:, kept] + damp * w64[:, kept]
    return torch.linalg.solve(own, target, left=False).to(w.dtype)


def rows_of(t: Tensor, kept: Tensor, parts: int) -> Tensor:
    """The rows of those of equal parts that are kept: (parts n, ...) -> (len(kept) n, ...)."""
    return t.unflatten(0, (parts, -1))[kept].flatten(0, 1)


def fewer_groups(state: dict[str, Tensor], config: GPTConfig, kept: Tensor) -> dict[str, Tensor]:
    """A block's state without the groups of heads that are not kept; proj stays as it is."""
    K, D = config.kv_heads, config.head_size
    sizes = config.n_head * D, K * D, K * D
    out = dict(state)
    for name in ("attn.qkv.weight", "attn.qkv.bias"):
        if name in state:
            out[name] = torch.cat([rows_of(t, kept, K) for t in state[name].split(sizes)])
    return out


def fewer_rows(state: dict[str, Tensor], config: GPTConfig, kept: Tensor) -> dict[str, Tensor]:
    """A block's state without the MLP channels that are not kept; down stays as it is."""
    wide = {f"mlp.{layer}.{kind}" for layer in ("gate", "up") for kind in ("weight", "bias")}
    return {name: t[kept] if name in wide else t for name, t in state.items()}


def smaller(model: TinyGPT, config: GPTConfig, ids: Tensor, refit: bool) -> TinyGPT:
    """The model with the heads or the MLP channels of a smaller config: those that add most.

    In each block those parts of proj's or down's inputs stay, and with refit their weights make
    up for the others by least squares.
    """
    old = model.config
    heads = config.n_head < old.n_head
    last, parts, n = "attn.proj", old.kv_heads, config.kv_heads
    if not heads:
        last, parts, n = "mlp.down", old.hidden, config.hidden
    state = dict(model.state_dict())

    def change(block: Block, H: dict[str, Tensor]) -> nn.Module:
        w = (block.attn.proj if heads else block.mlp.down).weight
        kept = importance(w, H[last], parts).topk(n).indices.sort().values
        inputs = rows_of(torch.arange(w.size(1)), kept, parts)
        own = (fewer_groups if heads else fewer_rows)(block.state_dict(), old, kept)
        own[f"{last}.weight"] = refitted(w, H[last], inputs) if refit else w[:, inputs]
        with torch.device("meta"):
            new = Block(config)
        new.load_state_dict(own, assign=True)
        i = next(count)
        state.update({f"blocks.{i}.{name}": t for name, t in own.items()})
        return new.train(block.training)

    count = iter(range(old.n_layer))
    with torch.no_grad():
        for _ in walk(model, ids, change):
            pass
    return rebuilt(model, config, state)


def fewer_heads(model: TinyGPT, ids: Tensor, sparsity: float, *, refit: bool = True) -> TinyGPT:
    """Take the share `sparsity` of the heads out of each block; those that share keys go together.

    Raises ValueError if that is none of the groups, or all.
    """
    c = model.config
    K = c.kv_heads - round(sparsity * c.kv_heads)
    if not 0 < K < c.kv_heads:
        least, most = 1 / c.kv_heads, 1 - 1 / c.kv_heads
        why = f"sparsity={sparsity} of {c.kv_heads} groups of heads is {c.kv_heads - K}"
        cure = f"give {least:.2f} to {most:.2f}" if c.kv_heads > 1 else "there is but one"
        raise ValueError(f"{why}; {cure}")
    H = c.n_head // c.kv_heads * K
    config = replace(c, n_head=H, n_kv_head=K if c.n_kv_head else 0, head_dim=c.head_size)
    return smaller(model, config, ids, refit)


def fewer_channels(model: TinyGPT, ids: Tensor, sparsity: float, *, refit: bool = True) -> TinyGPT:
    """Take the share `sparsity` of the MLP's channels out of each block.

    Where their number is a multiple of 32, or shares a factor with it, so does what stays. Raises
    ValueError if that is none of them, or all.
    """
    F = model.config.hidden
    step = math.gcd(F, MULTIPLE)
    n = step * round((1 - sparsity) * F / step)
    if not 0 < n < F:
        cure = f"give {step / F:.3f} to {1 - step / F:.3f}" if step < F else "there are too few"
        raise ValueError(f"sparsity={sparsity} leaves {n} of {F} channels; {cure}")
    return smaller(model, replace(model.config, d_ff=n), ids, refit)


@torch.no_grad()
def block_influence(model: TinyGPT, ids: Tensor) -> list[float]:
    """1 - the mean cosine of the residual stream before and after each block (Men et al. 2024)."""
    found = []
    T = ids.size(1)
    rope = model.rope(T, slice(T)) if model.config.pos == "rope" else None
    parts = [model.embed(part, slice(T)) for part in ids.split(4)]
    for block in model.blocks:
        after = read(block, parts, rope)
        both = zip(parts, after, strict=True)
        cosine = torch.cat([F.cosine_similarity(x, y, dim=-1).flatten() for x, y in both])
        found.append(1 - float(cosine.mean()))
        parts = after
    return found


def fewer_layers(model: TinyGPT, ids: Tensor, drop: int) -> TinyGPT:
    """Take out the `drop` blocks that change the residual stream least.

    Raises ValueError for none of them, or all.
    """
    L = model.config.n_layer
    if not 0 < drop < L:
        raise ValueError(f"drop={drop} of {L} blocks; give 1 to {L - 1}")
    influence = block_influence(model, ids)
    gone = sorted(range(L), key=lambda i: influence[i])[:drop]
    return without_blocks(model, gone)


def without_blocks(model: TinyGPT, gone: list[int]) -> TinyGPT:
    """The model without the blocks of these numbers."""
    left = [i for i in range(model.config.n_layer) if i not in gone]
    state = {k: t for k, t in model.state_dict().items() if not k.startswith("blocks.")}
    for new, old in enumerate(left):
        own = model.blocks[old].state_dict()
        state |= {f"blocks.{new}.{name}": t for name, t in own.items()}
    return rebuilt(model, replace(model.config, n_layer=len(left)), state)


@torch.no_grad()
def zeros_of(model: TinyGPT) -> float:
    """The share of the weights in the blocks' matrices that is 0."""
    weights = [m.weight for m in model.blocks.modules() if isinstance(m, nn.Linear)]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)
