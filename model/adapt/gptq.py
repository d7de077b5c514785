"""Rounding to 4 bits by what layers read: GPTQ (Frantar et al. 2022), and scales as AWQ's.

A layer's error is tr(D H D^T), D = W - W', over the second moments H = X^T X of its inputs X.
Letters: N outputs, K inputs of a layer, T tokens, C = d_model.
"""

import copy
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from model.adapt.rounding import Codes, check_group, grid, int4_codes, nearest, packed, values
from model.attention import Rope
from model.gpt import Block, TinyGPT, is_plain

DAMP = 0.01  # of H's mean diagonal, added to it: inputs that hardly occur
POWERS = [i / 10 for i in range(11)]
AT_ONCE = 4  # windows


def error(w: Tensor, rounded: Tensor, H: Tensor) -> float:
    """tr(D H D^T): the squared change of the layer's outputs, summed over its inputs."""
    D = w - rounded
    return float(((D @ H) * D).sum())


def gptq_codes(w: Tensor, H: Tensor, group: int) -> Codes:
    """Round the columns of w (N,K) in turn, each one's error made up for by those to its right.

    With U^T U = H^-1 column j moves the rest by (w_j - q_j) U_jk / U_jj. A group's grid is that of
    its weights when its turn comes. Where rounding to the nearest has the smaller error, that.
    """
    check_group(w.size(1), group)
    w = w.float()
    U = inverse_root(H)
    rest, q, scales, zeros = w.clone(), torch.empty_like(w), [], []
    for j in range(w.size(1)):
        if j % group == 0:
            scale, zero = grid(rest[:, j : j + group])
            scales.append(scale)
            zeros.append(zero)
        column = rest[:, j : j + 1]
        q[:, j : j + 1] = nearest(column, scale, zero)
        kept = q[:, j : j + 1] * scale.float() + zero.float()
        rest[:, j + 1 :] -= (column - kept) / U[j, j] * U[j, j + 1 :]
    found, plain = Codes(packed(q), torch.cat(scales, 1), torch.cat(zeros, 1)), int4_codes(w, group)
    better = error(w, values(found), H) <= error(w, values(plain), H)
    return found if better else plain


def inverse_root(H: Tensor) -> Tensor:
    """Upper triangular U with U^T U = (H + damping)^-1; inputs that are always 0 count as 1."""
    H = H.double()
    diagonal = H.diagonal()
    H = H + torch.diag((diagonal == 0) + DAMP * diagonal.mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(H))
    return torch.linalg.cholesky(inverse, upper=True).float()


def linears(block: nn.Module) -> dict[str, nn.Linear]:
    """A block's plain linear layers by name."""
    return {name: layer for name, layer in block.named_modules() if is_plain(layer)}


def moments(block: nn.Module, run: Callable[[], object]) -> dict[str, Tensor]:
    """H (K,K) of each linear layer over all that it reads while `run` runs."""
    found: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].flatten(0, -2).float()
            found[name] = found.get(name, 0) + x.T @ x

        return add

    hooks = [layer.register_forward_pre_hook(hook(name)) for name, layer in linears(block).items()]
    try:
        run()
    finally:
        for handle in hooks:
            handle.remove()
    return found


def read(block: nn.Module, parts: list[Tensor], rope: Rope | None) -> list[Tensor]:
    """The residual stream (B,T,C) after a block, in parts."""
    return [block(x, rope) for x in parts]


def walk(
    model: TinyGPT, ids: Tensor, change: Callable[[Block, dict[str, Tensor]], nn.Module]
) -> Iterator[tuple[str, nn.Module]]:
    """Each block's name and what `change` makes of it and its moments; the next reads its output.

    ids (B,T) are calibration text. Raises ValueError for a model with experts, some of which may
    read nothing of it.
    """
    if E := model.config.experts:
        raise ValueError(f"experts={E} can't be calibrated; round without --calibrate")
    T = ids.size(1)
    rope = model.rope(T, slice(T)) if model.config.pos == "rope" else None
    parts = [model.embed(part, slice(T)) for part in ids.split(AT_ONCE)]
    for i, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        changed = change(block, moments(block, partial(read, block, parts, rope)))
        parts = read(changed, parts, rope)
        yield f"blocks.{i}", changed


@torch.no_grad()
def gptq(model: TinyGPT, ids: Tensor, group: int) -> dict[str, Codes]:
    """Codes of all linear layers of the blocks by GPTQ, what `quantize` takes as `made`.

    Each block is rounded by what it reads after those before it have been. ids (B,T).
    """
    made: dict[str, dict[str, Codes]] = {}

    def change(block: Block, H: dict[str, Tensor]) -> nn.Module:
        own = copy.deepcopy(block)
        codes = {name: gptq_codes(m.weight, H[name], group) for name, m in linears(own).items()}
        for name, layer in linears(own).items():
            layer.weight.copy_(values(codes[name]))
        made[f"blocks.{len(made)}"] = codes
        return own

    for _ in walk(model, ids, change):
        pass
    return {f"{block}.{name}": c for block, codes in made.items() for name, c in codes.items()}


def best_scale(layers: list[nn.Linear], H: Tensor, group: int) -> Tensor:
    """Factors s (K,) of the inputs with which rounding W s, read as x / s, has the least error.

    s = r^a of the inputs' root mean square r, for the best a of POWERS (AWQ, Lin et al. 2023,
    eq. 5): weights of large inputs are rounded more finely. a = 0 leaves all as it is.
    """
    r = H.diagonal().sqrt().clamp(min=1e-8)
    r = r / (r.max() * r.min()).sqrt()
    errors = {}
    for a in POWERS:
        s = r**a
        rounded = [values(int4_codes(m.weight * s, group)) / s for m in layers]
        pairs = zip(layers, rounded, strict=True)
        errors[a] = sum(error(m.weight.float(), w, H) for m, w in pairs)
    return r ** min(POWERS, key=lambda a: errors[a])


@torch.no_grad()
def balance(model: TinyGPT, ids: Tensor, group: int) -> TinyGPT:
    """Scale inputs of layers for rounding, in place; the model computes the same; gives it.

    The norm before qkv, gate and up is divided by what multiplies their columns, and in a gated
    MLP the rows of up by what multiplies down's. Raises ValueError for a post-norm model, whose
    norms feed the residual stream, too.
    """
    if model.config.norm_at != "pre":
        raise ValueError(f"norm_at={model.config.norm_at}: scales need norm_at pre; take GPTQ")

    def change(block: Block, H: dict[str, Tensor]) -> nn.Module:
        mlp = block.mlp
        wide = [mlp.up] if mlp.gate is None else [mlp.gate, mlp.up]
        if mlp.gate is not None:
            divide(mlp.up, [mlp.down], best_scale([mlp.down], H["mlp.down"], group))
        divide(block.norm1, [block.attn.qkv], best_scale([block.attn.qkv], H["attn.qkv"], group))
        divide(block.norm2, wide, best_scale(wide, H["mlp.up"], group))
        return block

    for _ in walk(model, ids, change):
        pass
    return model


def divide(before: nn.Module, layers: list[nn.Linear], s: Tensor) -> None:
    """Divide what a norm or layer gives by s, and multiply the columns that read it."""
    for name, p in before.named_parameters():
        value = p / s[:, None] if p.ndim == 2 else p / s
        before.register_parameter(name, nn.Parameter(value))  # a mapped file stays as it is
    for layer in layers:
        layer.weight = nn.Parameter(layer.weight * s)
