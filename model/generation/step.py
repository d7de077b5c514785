"""A decoding step in few calls: for one token, calling costs more than computing.

The equations of `model.gpt.Block` for T = 1: no dimension of time, and no module around a product.
Letters: B rows, C = d_model, H heads, K of keys and values, D dimensions each.
"""

from collections.abc import Callable
from functools import partial
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module

from model.attention import CausalSelfAttention, LayerCache, Rope
from model.generation.cache import KVCache
from model.generation.native_step import NativeBlocks, can_step_natively
from model.gpt import MLP, Block, TinyGPT, is_plain
from model.norm import Norm

Layer = Callable[[Tensor], Tensor]
OURS = {TinyGPT, Block, CausalSelfAttention, MLP, Norm, nn.ModuleList, nn.Identity}
ANY_KIND = nn.Linear, nn.Embedding  # quantized, with adapters, in pieces
TRIALS, AGAIN = 6, 1000  # steps that are timed each way, and steps until they are timed anew


def can_step(model: nn.Module) -> bool:
    """Whether a TokenStep computes what the model does: all parts are ours, and none is hooked.

    It attends by torch's kernel; linear layers and embeddings may be of any kind.
    """
    if type(model) is not TinyGPT or model.config.attn == "naive":
        return False
    if module._global_forward_hooks or module._global_forward_pre_hooks:
        return False
    parts = [m for m in model.modules() if not isinstance(m, ANY_KIND)]
    hooked = any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in parts)
    return not hooked and all(type(m) in OURS for m in parts)


def linear(layer: nn.Linear) -> Layer:
    """A linear layer of x (B,C) as the product that it comes to, if it is no more than that."""
    if not is_plain(layer):
        return layer
    weight, bias = layer.weight.detach().T, getattr(layer, "bias", None)
    if bias is None:
        return partial(torch.mm, mat2=weight)
    return partial(torch.addmm, bias, mat2=weight)


def added(layer: nn.Linear) -> Callable[[Tensor, Tensor], Tensor]:
    """x + layer(y), both (B,C), in one call if the layer is a product alone."""
    if is_plain(layer) and getattr(layer, "bias", None) is None:
        return partial(torch.addmm, mat2=layer.weight.detach().T)
    f = linear(layer)
    return lambda x, y: x + f(y)


def normed(norm: Norm) -> Layer:
    """A norm as torch's kernel, if it is one."""
    if norm.kind == "rmsnorm":
        return lambda x: torch.rms_norm(x, norm.weight.shape, norm.weight, norm.eps)
    how = norm.weight.shape, norm.weight, norm.bias, norm.eps
    return lambda x: torch.layer_norm(x, *how)


def rotation(rope: Rope) -> Rope:
    """RoPE's tables for `rotated`: what the first half is multiplied by, and the second."""
    cos, sin = rope
    return torch.cat((cos, sin), -2), torch.cat((-sin, cos), -2)  # (1,2,D/2) or (B,1,2,D/2)


def rotated(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """`model.positions.rotate` of x (B,H,1,D) in two products, both halves at once."""
    a, b = x.view(len(x), x.size(1), 2, -1).split(1, 2)  # (B,H,1,D/2)
    return torch.addcmul(a * first, b, second).reshape(x.shape)


class StepBlock:
    """A Block that reads one token in each of B rows."""

    def __init__(self, block: Block) -> None:
        attn, mlp = block.attn, block.mlp
        self.post, self.heads, self.act = block.post, attn.heads, mlp.act
        self.norm1, self.norm2 = normed(block.norm1), normed(block.norm2)
        self.qk_norm = (normed(attn.q_norm), normed(attn.k_norm)) if attn.qk_norm else None
        self.qkv, self.add_proj = linear(attn.qkv), added(attn.proj)
        self.gate = None if mlp.gate is None else linear(mlp.gate)
        self.up, self.add_down = linear(mlp.up), added(mlp.down)

    def __call__(self, x: Tensor, rope: Rope | None, cache: LayerCache) -> Tensor:
        """The residual stream x (B,C) after this block; rope is the `rotation` of its position."""
        if self.post:
            x = self.norm1(self.add_proj(x, self.heads_of(x, rope, cache)))
            return self.norm2(self.add_down(x, self.hidden(x)))
        x = self.add_proj(x, self.heads_of(self.norm1(x), rope, cache))
        return self.add_down(x, self.hidden(self.norm2(x)))

    def heads_of(self, x: Tensor, rope: Rope | None, cache: LayerCache) -> Tensor:
        """What the heads gather from all that the cache gives, side by side: (B,C) -> (B,HD)."""
        H, K, _ = self.heads
        qk, v = self.qkv(x).view(len(x), H + 2 * K, 1, -1).split((H + K, K), 1)  # (B,H+K,1,D)
        if self.qk_norm is not None:
            q, k = qk.split((H, K), 1)
            qk = torch.cat((self.qk_norm[0](q), self.qk_norm[1](k)), 1)
        if rope is not None:
            qk = rotated(qk, *rope)
        q, k = qk.split((H, K), 1)
        k, v, attn_mask = cache.append(k, v)
        q = q.view(len(x), K, H // K, -1)  # heads that share keys are so many queries of these
        return F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask).reshape(len(x), -1)

    def hidden(self, x: Tensor) -> Tensor:
        """The MLP's wide layer."""
        if self.gate is None:
            return self.act(self.up(x))
        return self.act(self.gate(x)) * self.up(x)


class TokenStep:
    """A model's `hidden_states` of one token a row, as `generate` takes it by `decode_step`.

    Of each AGAIN steps the first are by one thread and by all of torch's in turn, TRIALS each, and
    the others by what took less time (the median). Small products gain nothing from a second
    thread, which has to be woken, or waited for where another program has its core, as it may or
    may not have later; large ones may.
    """

    def __init__(self, model: TinyGPT) -> None:
        self.model = model
        self.blocks = [StepBlock(block) for block in model.blocks if isinstance(block, Block)]
        self.native = NativeBlocks(model) if can_step_natively(model) else None
        self.seconds: dict[bool, list[float]] = {True: [], False: []}  # by one thread, by all
        self.alone, self.taken = True, 0

    def __call__(self, idx: Tensor, cache: KVCache) -> Tensor:
        """Hidden states (B,1,C) of idx (B,1). ValueError if the cache has no room for it."""
        threads = torch.get_num_threads()
        if threads == 1:
            return self.step(idx, cache)
        began = perf_counter()
        try:
            torch.set_num_threads(1 if self.alone else threads)
            return self.step(idx, cache)
        finally:
            torch.set_num_threads(threads)
            self.taken += 1
            if len(self.seconds[False]) < TRIALS:
                self.choose(perf_counter() - began)
            elif self.taken >= AGAIN:
                self.seconds, self.taken = {True: [], False: []}, 0

    def choose(self, seconds: float) -> None:
        """Note what a step took; the next is by the other way, after the last trial by the best."""
        self.seconds[self.alone].append(seconds)
        one, all_of_them = self.seconds[True], self.seconds[False]
        self.alone = not self.alone
        if len(all_of_them) == TRIALS:
            self.alone = median(one) <= median(all_of_them)

    def step(self, idx: Tensor, cache: KVCache) -> Tensor:
        """Do the work of a call."""
        positions, before = cache.open(*idx.shape), cache.remember(idx)
        x = self.model.embed(idx, positions, before)[:, 0]
        rope = self.model.rope(1, positions) if self.model.config.pos == "rope" else None
        x = self.through(x, rope, cache)
        cache.advance(1)
        return self.model.norm(x)[:, None]

    def through(self, x: Tensor, rope: Rope | None, cache: KVCache) -> Tensor:
        """The residual stream x (B,C) after all blocks."""
        if self.native is not None and self.native.takes(x, cache):
            return self.native(x, rope, cache)
        turns = None if rope is None else rotation(rope)
        for block, layer in zip(self.blocks, cache.layers, strict=True):
            x = block(x, turns, layer)
        return x
